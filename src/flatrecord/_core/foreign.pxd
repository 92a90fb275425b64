"""What another library owns and shows us, or we own and show to it."""


cdef class Region:
    cdef readonly size_t address  # first byte; valid as long as whatever the subclass keeps alive
    cdef readonly Py_ssize_t nbytes


cdef class Memory(Region):
    # An adapter's subclass keeps the other library's object.
    cdef readonly bint elsewhere  # not in the host's memory


cdef class Loan(Region):
    cdef object owner  # keeps the memory; may be any object that a Buffer may have as owner, or a Buffer
    cdef object __weakref__


cdef object adapter_of(value)
