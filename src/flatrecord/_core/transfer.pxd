"""Moving entries between a container and a record, all or nothing."""

cdef list absorb(source, list places, list names, bint keep_input, copy)
cdef list release(list names, list arrays, copy)
