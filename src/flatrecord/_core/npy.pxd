"""The ``.npy`` header: write and parse."""

from numpy cimport ndarray


cdef class Header:
    # What an Array knows beside its payload. Immutable, and shared by arrays that are alike.
    cdef readonly str dtype  # the name that Flower uses, as in str(ndarray.dtype), or as it was given
    cdef readonly tuple shape
    cdef readonly str stype
    cdef readonly bint fortran_order
    cdef readonly object descr  # np.dtype; None where the payload has not been parsed
    cdef readonly bytes preamble  # what `.npy` puts before the payload; empty where the payload holds its own
    cdef int ndim  # of what is in the table of written headers; its sizes, as far as there is room, stand in `sizes`
    cdef Py_ssize_t sizes[4]


cdef object private_dtype(descr)
cdef bint is_header_of(Header header, ndarray array)
cdef Header header_of_ndarray(ndarray array)
cdef Header header_of_fields(str dtype, shape, str stype)
cdef Header parse_header(const char *data, Py_ssize_t size, Py_ssize_t beyond, str dtype, Py_ssize_t *offset)
cdef Header parse_preamble(const char *data, Py_ssize_t size, str dtype, Py_ssize_t *offset, Py_ssize_t *wanted)
