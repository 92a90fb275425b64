"""Objects on the memory of a Buffer: ndarrays, and what an adapter makes."""

from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF

import numpy as np

cimport numpy as cnp
from numpy cimport ndarray

from .buffer cimport Buffer
from .holders cimport IMMUTABLE, Trail, follow
from .npy cimport KEPT_SIZES, Header, private_dtype

cdef extern from "numpy/arrayobject.h":
    ctypedef struct PyArray_Descr:
        pass
    # Steals the reference to `descr`.
    ndarray PyArray_NewFromDescr(
        PyTypeObject *subtype,
        PyArray_Descr *descr,
        int ndim,
        cnp.npy_intp *dims,
        cnp.npy_intp *strides,
        void *data,
        int flags,
        PyObject *parent,
    )

cnp.import_array()


cdef ndarray ndarray_over(Header header, Buffer buffer, Py_ssize_t offset, bint writable):
    """An ndarray on the memory of `buffer`, which it keeps alive."""
    cdef cnp.npy_intp dims[64]
    cdef int axis, ndim = len(header.shape), flags = cnp.NPY_ARRAY_WRITEABLE if writable else 0
    cdef object descr = header.descr if header.ndim >= 0 else private_dtype(header.descr)
    cdef ndarray array
    if header.ndim < 0 and descr.itemsize == 0:
        # Not by NumPy's C function, which gives an empty string type one byte an element: nothing of that is there to be
        # read, and to have it anew would take as much memory as anybody may say that there are elements.
        array = np.ndarray(header.shape, descr)
        array.flags.writeable = writable
        return array
    for axis in range(ndim):
        dims[axis] = header.sizes[axis] if header.ndim >= 0 and axis < KEPT_SIZES else <cnp.npy_intp> header.shape[axis]
    if header.fortran_order:
        flags |= cnp.NPY_ARRAY_F_CONTIGUOUS
    Py_INCREF(descr)
    array = PyArray_NewFromDescr(
        <PyTypeObject *> ndarray, <PyArray_Descr *> descr, ndim, dims, NULL, buffer.pointer + offset, flags, NULL
    )
    assert cnp.PyArray_NBYTES(array) <= buffer.nbytes - offset
    cnp.set_array_base(array, buffer)
    cnp.PyArray_UpdateFlags(array, cnp.NPY_ARRAY_UPDATE_ALL)
    return array


cdef object view_over(form, Header header, Buffer buffer, Py_ssize_t offset, bint writable):
    """What shows the memory of `buffer` from `offset` on, and keeps it alive.

    Parameters
    ----------
    form : None or the `Form` of an adapter
        None for an ndarray, which is the very one that was taken where it still fits.
    writable : bool
        The memory has been given up to whoever gets the view.
    """
    cdef Trail trail
    cdef char *pointer = buffer.pointer + offset
    if form is None:
        if writable and is_array_of(buffer.owner, header):
            cnp.PyArray_ENABLEFLAGS(<ndarray> buffer.owner, cnp.NPY_ARRAY_WRITEABLE)
            return buffer.owner
        return ndarray_over(header, buffer, offset, writable)
    # Views on parts of the same memory are to come from the same object: its root, if that is known.
    if (
        follow(<PyObject *> buffer, 0, None, &trail) == IMMUTABLE
        or trail.pointer > pointer
        or pointer + (buffer.nbytes - offset) > trail.pointer + trail.nbytes
    ):
        trail.root, trail.pointer, trail.nbytes = <PyObject *> buffer, buffer.pointer, buffer.nbytes
    return form.make(
        header.descr,
        header.shape,
        header.fortran_order,
        buffer,
        <object> trail.root,
        <size_t> trail.pointer,
        trail.nbytes,
        <Py_ssize_t> (pointer - trail.pointer),
        writable,
    )


cdef bint is_array_of(value, Header header) except -1:
    """Whether `value` is the plain ndarray that `header` was made for, and still what it was then."""
    if type(value) is not ndarray or value.shape != header.shape or value.dtype != header.descr:
        return False
    return cnp.PyArray_IS_F_CONTIGUOUS(value) if header.fortran_order else cnp.PyArray_IS_C_CONTIGUOUS(value)
