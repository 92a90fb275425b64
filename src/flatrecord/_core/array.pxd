"""Array: a header and a payload."""

from numpy cimport ndarray

from .buffer cimport Buffer
from .npy cimport Header


cdef class Array:
    cdef Header header  # shared with arrays that are alike; never None
    cdef Buffer payload  # never None; immutable but for borrowed memory
    cdef bint listed  # `shape` reads back as a list, as it was given
    cdef object __weakref__


cdef Array array_of_ndarray(object cls, ndarray value, copy, bint popped, bint *lives_on)
cdef Array duplicate_array(Array array)
cdef bint is_immutable(Array array)
cdef int let_go(Array array) noexcept
cdef ndarray ndarray_over(Header header, Buffer buffer, Py_ssize_t offset, bint writable)
cdef Header readable_header(Array array, Py_ssize_t *offset)
cdef int check_ndarray(ndarray value, copy) except -1
cdef int check_copy(copy) except -1
cdef str exact_str(text)
