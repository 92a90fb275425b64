"""Array: a header and a payload."""

from numpy cimport ndarray

from .buffer cimport Buffer, Ownership
from .npy cimport Header


cdef class Array:
    cdef Header header  # shared with arrays that are alike; never None
    # The payload. A Buffer, shared with tied arrays; or an ndarray that was taken and has memory of its own, around which
    # a Buffer is put only when somebody asks for it. Never None; immutable but for borrowed memory.
    cdef object memory
    cdef bint listed  # `shape` reads back as a list, as it was given
    cdef object __weakref__


cdef Buffer payload_of(Array array)
cdef object memory_of(Array array)
cdef Ownership ownership_of(memory) noexcept
cdef Py_ssize_t extent_of(Array array, char **pointer) noexcept
cdef Py_ssize_t serialized_length(Array array) except -1
cdef Array made_of(type cls, Header header, memory, bint listed)
cdef Array shell_of(type cls, Header header)
cdef bint is_shell(Array array)
cdef int give_memory(Array array, Header header, memory) except -1
cdef Array recast(Array array, cls)
cdef bint is_immutable(Array array)
cdef Buffer given_up(Buffer copied)
cdef int let_go(Array array) noexcept
cdef Header readable_header(Array array, Py_ssize_t *offset)
cdef Header checked_header(ndarray value)
cdef int check_copy(copy) except -1
cdef str exact_str(text)
