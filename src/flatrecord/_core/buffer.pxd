"""Memory and its owner: take, snapshot, borrow, allocate."""

from cpython.object cimport PyObject
from numpy cimport ndarray

cdef enum Ownership:
    TAKEN  # was somebody's, is now held by the Buffer alone
    SNAPSHOT  # allocated here, filled by a copy
    BORROWED  # still shared with somebody who may write to it, by the caller's word
    SHARED  # immutable: nobody can write to it, whoever else holds it

cdef enum Holder:
    SOLE  # the lent reference is the only way to the memory
    SEEN  # somebody else was seen to hold it
    UNKNOWN  # who else holds it cannot be known
    IMMUTABLE  # nobody can write to it


cdef class Buffer:
    cdef char *pointer  # first byte, never NULL; valid as long as `owner` (or this object) lives
    cdef readonly Py_ssize_t nbytes
    cdef object owner  # who owns the memory, held for its sake; None where this Buffer owns it
    cdef Ownership ownership
    cdef bint mapped  # own memory: from flatrecord_map, else from malloc
    cdef bint surrendered  # given up to an ndarray that may write to it


cdef Buffer allocate(Py_ssize_t nbytes)
cdef Buffer admit_ndarray(ndarray array, copy, bint popped, bint *lives_on)
cdef Buffer admit_exporter(exporter, copy)
cdef Buffer duplicate(Buffer buffer)
cdef bint is_contiguous(ndarray array)
cdef bint is_sole(PyObject *value)
cdef bint surrender(Buffer buffer)
