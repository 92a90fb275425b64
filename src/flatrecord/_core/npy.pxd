"""The ``.npy`` header: write and parse."""

from numpy cimport ndarray

cdef str NUMPY_STYPE  # Flower's name for the format


cdef class Header:
    # What an Array knows beside its payload. Immutable, and shared by arrays that are alike.
    cdef readonly str dtype  # the name that Flower uses, as in str(ndarray.dtype), or as it was given
    cdef readonly tuple shape
    cdef readonly str stype
    cdef readonly bint fortran_order
    cdef readonly object descr  # np.dtype; None where the payload has not been parsed
    cdef readonly bytes preamble  # what `.npy` puts before the payload; empty where the payload holds its own
    # For most headers, what NumPy needs of `descr` and `shape`, so that nobody has to ask them: the number of axes, and the
    # sizes of the first four. -1 where the dtype has fields or no bytes, and where nobody has needed this yet.
    cdef int ndim
    cdef Py_ssize_t sizes[4]


cdef enum:
    KEPT_SIZES = 4  # the length of Header.sizes


cdef object private_dtype(descr)
cdef bint is_header_of(Header header, ndarray array)
cdef Header header_of_ndarray(ndarray array)
cdef Header header_of_fields(str dtype, shape, str stype)
cdef Header parse_header(const char *data, Py_ssize_t size, Py_ssize_t beyond, str dtype, Py_ssize_t *offset)
cdef Header parse_preamble(const char *data, Py_ssize_t size, str dtype, Py_ssize_t *offset, Py_ssize_t *wanted)
