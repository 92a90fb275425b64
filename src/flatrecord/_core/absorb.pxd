"""Entries of a container become Arrays."""

cdef int absorb(source, list places, list names, dict staged, bint keep_input, copy, type array_class) except -1
