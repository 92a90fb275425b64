"""Who else can reach a piece of memory.

An ndarray may have its memory from another, that one from a memoryview, that one from a bytearray.
Whoever holds any of these can reach the memory. So the way is followed from object to object down to
the root, which has the memory, and each object's references are compared with those that are known.

Raw pointers throughout, because an `object` would add the very reference that is being counted.
"""

from cpython.bytearray cimport PyByteArray_AsString
from cpython.bytes cimport PyBytes_AsString, PyBytes_CheckExact
from cpython.memoryview cimport PyMemoryView_FromObject
from cpython.object cimport PyObject

cimport numpy as cnp
from numpy cimport ndarray

from gc import get_referents
from mmap import mmap as _mmap
from weakref import getweakrefcount

from .buffer cimport SHARED, Buffer
from .foreign cimport Loan, Memory

cdef extern from "Python.h":
    PyObject *PyList_GetItem(object values, Py_ssize_t i) except NULL

cdef extern from "platform.h":
    bint flatrecord_has_references(PyObject *object, Py_ssize_t count)

cdef extern from *:
    """
    #define flatrecord_has_weak_references(array) (((PyArrayObject_fields *)(array))->weakreflist != NULL)
    """
    bint flatrecord_has_weak_references(ndarray array)

cnp.import_array()

# The exact types, compared by identity: a subclass may add holders or change meanings.
cdef object NDARRAY = ndarray
cdef object MMAP = _mmap
cdef object MEMORYVIEW = memoryview
cdef object BYTEARRAY = bytearray
# What the views on the same memory share, and what has the one reference to the exporter. It is no
# attribute of a memoryview, but what the garbage collector visits below it.
cdef object MANAGED_BUFFER = type(get_referents(memoryview(b""))[0])


cdef bint is_sole(PyObject *value):
    """Whether there is only one reference to `value`."""
    return flatrecord_has_references(value, 1)


cdef bint has_references(PyObject *value, Py_ssize_t count):
    """Whether there are `count` references to `value`, and no more."""
    return flatrecord_has_references(value, count)


cdef PyObject *item(list values, Py_ssize_t i) except NULL:
    """What is in a list, without a reference of one's own."""
    return PyList_GetItem(values, i)


cdef object immutable_owner(object value):
    """`value` in a form that keeps its memory in place, where that memory is immutable; else None.

    Immutable are exact `bytes`, mappings opened read-only, and what a Buffer shares of these. A
    mapping comes back as a memoryview, which keeps anyone from closing it.
    """
    cdef object view, exporter
    if PyBytes_CheckExact(value):
        return value
    if type(value) is MMAP:
        view = PyMemoryView_FromObject(value)
        return view if view.readonly else None
    if type(value) is Buffer and (<Buffer> value).ownership == SHARED:
        return (<Buffer> value).owner
    if type(value) is MEMORYVIEW:
        try:
            exporter = value.obj
        except ValueError:  # it was released
            return None
        return None if type(exporter) is MEMORYVIEW else immutable_owner(exporter)
    return None


cdef int end(Trail *trail, char *pointer, Py_ssize_t nbytes, bint known) except -1:
    """Note the memory that the root has."""
    trail.pointer, trail.nbytes = pointer, nbytes
    trail.known = trail.known and known
    return 0


cdef PyObject *below(PyObject *link, Trail *trail) except? NULL:
    """The object from which `link` has its memory; NULL at the root."""
    cdef object value, referents
    if isinstance(<object> link, ndarray):
        # A subclass (np.memmap, np.ma) may keep the memory in further attributes.
        trail.known = trail.known and type(<object> link) is NDARRAY
        trail.known = trail.known and not cnp.PyArray_CHKFLAGS(<ndarray> link, cnp.NPY_ARRAY_WRITEBACKIFCOPY)
        # A weak reference counts as a holder, because it can become a strong one.
        trail.seen = trail.seen or flatrecord_has_weak_references(<ndarray> link)
        trail.writable = trail.writable or cnp.PyArray_CHKFLAGS(<ndarray> link, cnp.NPY_ARRAY_WRITEABLE)
        if cnp.PyArray_BASE(<ndarray> link) != NULL:
            return cnp.PyArray_BASE(<ndarray> link)
        end(
            trail,
            cnp.PyArray_BYTES(<ndarray> link),
            cnp.PyArray_NBYTES(<ndarray> link),
            cnp.PyArray_CHKFLAGS(<ndarray> link, cnp.NPY_ARRAY_OWNDATA),
        )
    elif type(<object> link) is Buffer:
        if (<Buffer> link).owner is not None:
            return <PyObject *> (<Buffer> link).owner
        end(trail, (<Buffer> link).pointer, (<Buffer> link).nbytes, True)
    elif type(<object> link) is Loan:
        return <PyObject *> (<Loan> link).owner
    elif isinstance(<object> link, Memory):
        value = (<Memory> link).beneath()
        if value is not None:
            return <PyObject *> value  # which the other library keeps alive
        end(trail, <char *> (<Memory> link).address, (<Memory> link).nbytes, True)
    elif type(<object> link) is MEMORYVIEW or type(<object> link) is MANAGED_BUFFER:
        trail.seen = trail.seen or (type(<object> link) is MEMORYVIEW and getweakrefcount(<object> link) > 0)
        referents = get_referents(<object> link)
        if len(referents) == 1:
            return <PyObject *> referents[0]
        end(trail, NULL, 0, False)
    elif type(<object> link) is BYTEARRAY:
        end(trail, PyByteArray_AsString(<object> link), len(<object> link), True)
    elif PyBytes_CheckExact(<object> link):
        # Unpickled ndarrays write to the `bytes` that pickle made for them and nobody else holds.
        end(trail, PyBytes_AsString(<object> link), len(<object> link), True)
    else:
        end(trail, NULL, 0, False)
    return NULL


cdef Holder follow(PyObject *start, Py_ssize_t tenants, dict accounted, Trail *trail) except *:
    """Who holds the memory that `start` shows, beside the caller.

    Parameters
    ----------
    start : an ndarray or a Buffer
    tenants : int
        How many of the holders that another library counts, of the first Memory on the way, are in
        the caller's hands.
    accounted : dict or None
        Made by `account`: how many references to each object are known. None where there is one to
        each: the caller's to `start`, and on the way down that of the object before.
    trail : pointer, filled in
        What was found on the way.
    """
    cdef PyObject *link = start
    trail.seen = trail.writable = False
    trail.known = True
    while link != NULL:
        trail.root = link
        trail.pointer, trail.nbytes = NULL, 0
        # What is writable on the way down is not immutable, whatever it is at the bottom.
        if not (trail.writable or isinstance(<object> link, ndarray)) and immutable_owner(<object> link) is not None:
            return IMMUTABLE
        if accounted is None:
            trail.seen = trail.seen or not is_sole(link)
        else:
            trail.seen = trail.seen or not has_references(link, accounted.get(<size_t> link, 0))
        if isinstance(<object> link, Memory):
            trail.known = trail.known and (<Memory> link).is_only_way()
            trail.seen = trail.seen or (<Memory> link).users() != tenants
            tenants = 0  # of any further one
        link = below(link, trail)
    if trail.seen:
        return SEEN
    return SOLE if trail.known else UNKNOWN


cdef bint is_lone(PyObject *value, Py_ssize_t references):
    """Whether `value` is an ndarray that has memory of its own and no more than so many `references`, all known: then nobody else has any.

    What `follow` would find, for the usual case.
    """
    return (
        flatrecord_has_references(value, references)
        and type(<object> value) is NDARRAY
        and cnp.PyArray_BASE(<ndarray> value) == NULL
        and cnp.PyArray_CHKFLAGS(<ndarray> value, cnp.NPY_ARRAY_OWNDATA)
        and not flatrecord_has_weak_references(<ndarray> value)
    )


cdef int account(PyObject *start, dict accounted) except -1:
    """Count the reference to `start`, and where it is the first, those on the way down from it."""
    cdef PyObject *link = start
    cdef Trail trail
    cdef size_t address
    trail.seen = trail.known = trail.writable = False  # nobody asks, but `below` looks at them
    while link != NULL:
        address = <size_t> link
        if address in accounted:
            accounted[address] += 1
            return 0
        accounted[address] = 1
        link = below(link, &trail)
    return 0


cdef object key_of(Trail *trail):
    """What all ways to the same memory have in common, while any of them lives."""
    cdef object root = <object> trail.root
    if isinstance(root, Memory):
        return (<Memory> root).key
    # Where memory is immutable, nobody has gone further down than to the first that says so.
    if type(root) is Buffer and (<Buffer> root).ownership == SHARED:
        root = (<Buffer> root).owner
    if type(root) is MEMORYVIEW and immutable_owner(root) is not None:
        root = root.obj
    return <size_t> <PyObject *> root
