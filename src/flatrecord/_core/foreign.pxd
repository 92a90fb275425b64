"""What another library owns and shows us, or we own and show to it."""


cdef class Region:
    cdef readonly object owner  # keeps the memory where it is
    cdef readonly size_t address  # first byte; valid as long as `owner` lives
    cdef readonly Py_ssize_t nbytes
    # Of a subclass that adds this alone, Cython 3.3 would not clear the weak references.
    cdef object __weakref__


cdef class Memory(Region):
    # `owner` is an object of the other library.
    cdef readonly bint elsewhere  # not in the host's memory


cdef class Loan(Region):
    pass  # `owner` is a Buffer


cpdef object adapter_of(value)
