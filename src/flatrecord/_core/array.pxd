"""Array: a header and a payload."""

from numpy cimport ndarray

from .buffer cimport Buffer
from .npy cimport Header


cdef class Array:
    cdef Header header  # shared with arrays that are alike; never None
    cdef Buffer payload  # never None, shared with tied arrays; immutable but for borrowed memory
    cdef bint listed  # `shape` reads back as a list, as it was given
    cdef object __weakref__


cdef Array made_of(type cls, Header header, Buffer payload, bint listed)
cdef Array shell_of(type cls, Header header)
cdef int give_payload(Array array, Header header, Buffer payload) except -1
cdef Array recast(Array array, cls)
cdef bint is_immutable(Array array)
cdef Buffer given_up(Buffer copied)
cdef int let_go(Array array) noexcept
cdef Header readable_header(Array array, Py_ssize_t *offset)
cdef Header checked_header(ndarray value)
cdef Header header_to_be(ndarray value, copy)
cdef int check_copy(copy) except -1
cdef str exact_str(text)
