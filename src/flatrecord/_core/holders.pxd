"""Who else can reach a piece of memory."""

from cpython.object cimport PyObject
from numpy cimport ndarray

cdef enum Holder:
    SOLE  # the lent reference is the only way to the memory
    UNKNOWN  # who else holds it cannot be known
    SEEN  # somebody else was seen to hold it
    IMMUTABLE  # nobody can write to it

cdef struct Trail:
    PyObject *root  # the last object on the way, which has the memory; lent by the one before it
    char *pointer  # first byte of the root's memory
    Py_ssize_t nbytes  # of the root's memory; 0 where that is not known
    bint seen, known, writable


cdef Holder follow(PyObject *start, Py_ssize_t tenants, dict accounted, Trail *trail) except *
cdef bint is_lone(PyObject *value, Py_ssize_t references)
cdef int account(PyObject *start, dict accounted) except -1
cdef object key_of(Trail *trail)
cdef object immutable_owner(value)
cdef bint is_sole(PyObject *value)
cdef bint has_references(PyObject *value, Py_ssize_t count)
cdef PyObject *item(list values, Py_ssize_t i) except NULL
