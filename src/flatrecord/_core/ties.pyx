"""Which Arrays share memory, and how much memory there is."""

from cpython.object cimport PyObject

from .array cimport Array, extent_of, memory_of, ownership_of
from .buffer cimport TAKEN
from .holders cimport Trail, follow


cdef tuple extent(Array array):
    """First and last address, the latter exclusive, of the memory that `array` keeps in use.

    A taken view keeps all of its base, where what it borrows or shares is not its own anyway.
    """
    cdef Trail trail
    cdef char *start
    cdef char *end
    cdef Py_ssize_t nbytes = extent_of(array, &start)
    end = start + nbytes
    cdef object memory = memory_of(array)
    if ownership_of(memory) == TAKEN and start < end:
        follow(<PyObject *> memory, 0, None, &trail)
        if trail.pointer <= start and end <= trail.pointer + trail.nbytes:
            start, end = trail.pointer, trail.pointer + trail.nbytes
    return <size_t> start, <size_t> end


cdef Py_ssize_t memory_in_use(list arrays) except -1:
    """Bytes of memory that some Arrays keep in use; what several show counts once."""
    cdef Py_ssize_t total = 0
    cdef size_t start, end, reached = 0
    cdef list extents = []
    for array in arrays:
        extents.append(extent(array))
    for start, end in sorted(extents):
        start = max(start, reached)
        if end > start:
            total += end - start
            reached = end
    return total


cdef list ties_of(list names, list arrays):
    """The groups of names whose Arrays overlap in memory, each a tuple of two or more."""
    cdef list groups = [], spans = [], found = []
    cdef size_t start, reached = 0
    cdef Py_ssize_t i
    cdef char *pointer
    cdef Array array
    for i, array in enumerate(arrays):
        if extent_of(array, &pointer) > 0:
            spans.append((<size_t> pointer, i))
    for start, i in sorted(spans):
        array = arrays[i]
        if start >= reached:
            groups.append([])
        groups[-1].append(i)
        reached = max(reached, start + <size_t> extent_of(array, &pointer))
    for group in sorted(map(sorted, groups)):
        if len(group) > 1:
            found.append(tuple(map(names.__getitem__, group)))
    return found
