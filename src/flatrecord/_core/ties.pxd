"""Which Arrays share memory, and how much memory there is."""

cdef Py_ssize_t memory_in_use(list arrays) except -1
cdef list ties_of(list names, list arrays)
