"""Moving entries between a container and a record, all or nothing."""

cdef int absorb(source, list places, dict staged, bint keep_input, copy) except -1
cdef list release(list names, list arrays, copy)
cdef int add_name(error, name) noexcept
cdef str type_name(value)
