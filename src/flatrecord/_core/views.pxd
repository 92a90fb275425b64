"""Objects on the memory of a Buffer: ndarrays, and what an adapter makes."""

from numpy cimport ndarray

from .buffer cimport Buffer
from .npy cimport Header

cdef ndarray ndarray_over(Header header, Buffer buffer, Py_ssize_t offset, bint writable)
cdef object view_over(form, Header header, Buffer buffer, Py_ssize_t offset, bint writable)
cdef bint is_array_of(value, Header header) except -1
