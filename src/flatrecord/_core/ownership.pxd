"""Take, snapshot, borrow or share: who owns the bytes afterwards."""

from numpy cimport ndarray

from .buffer cimport Buffer
from .holders cimport Holder, Trail

cdef object admit_ndarray(ndarray array, copy, bint popped, Holder holder, Trail *trail)
cdef Buffer buffer_on(ndarray array)
cdef Buffer admit_exporter(exporter, copy)
cdef list admit_group(list arrays, bint popped, Holder holder, Trail *trail, Py_ssize_t *at)
cdef list copies(list pointers, list sizes, Py_ssize_t *at)
cdef bint is_contiguous(ndarray array)
cdef bint is_mapping(Trail *trail)
