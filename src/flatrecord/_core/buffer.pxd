"""A run of bytes and its owner."""

cdef enum Ownership:
    TAKEN  # was somebody's, is now held by the Buffer alone
    SNAPSHOT  # allocated here, filled by a copy
    BORROWED  # still shared with somebody who may write to it, by the caller's word
    SHARED  # immutable: nobody can write to it, whoever else holds it


cdef class Buffer:
    cdef char *pointer  # first byte, never NULL; valid as long as `owner` (or this object) lives
    cdef readonly Py_ssize_t nbytes
    cdef object owner  # who owns the memory, held for its sake; None where this Buffer owns it
    cdef Ownership ownership
    cdef size_t mapped  # own memory: the size of the block in whose first page it begins; 0 where it is from Python's allocator
    cdef bint surrendered  # given up to somebody who may write to it
    cdef Py_ssize_t writers  # exports that may be written to


cdef Buffer allocate(Py_ssize_t nbytes, const char *source)
cdef Buffer hold(owner, char *pointer, Py_ssize_t nbytes, Ownership ownership)
cdef Buffer hold_exporter(exporter)
cdef Buffer snapshot(const char *source, Py_ssize_t nbytes)
cdef Buffer duplicate(Buffer buffer, Py_ssize_t offset)
cdef bytes joined(bytes head, Buffer payload)
