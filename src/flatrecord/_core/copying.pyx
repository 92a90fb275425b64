"""Moving bytes: copies and comparison without the GIL that honour Ctrl-C.

Each function works in slices of time. A slice runs without the GIL; between two slices pending
signals are handled, so that an interrupt waits for one slice and never for the array. Slices of time
rather than of bytes, because taking the GIL back can cost 5 ms where other threads are busy.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t
from libc.string cimport memcmp, memcpy

cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX

cdef extern from "platform.h":
    int64_t flatrecord_milliseconds() noexcept nogil

cdef enum:
    MAX_DIMS = 64  # NumPy 2's own limit
    SLICE = 25  # milliseconds without looking for signals
    STEP = 1 << 20  # bytes moved without looking at the clock
    SMALL = 64 << 10  # below this many bytes, releasing the GIL costs more than it gives
    ELEMENT_COST = 64  # bytes that a strided element counts for: the cache line that it may miss


cdef int copy_bytes(char *target, const char *source, Py_ssize_t size) except -1:
    """Copy `size` bytes between two blocks that do not overlap."""
    cdef Py_ssize_t step
    cdef int64_t until
    if size <= SMALL:
        memcpy(target, source, size)
        return 0
    while size > 0:
        with nogil:
            until = flatrecord_milliseconds() + SLICE
            while size > 0 and flatrecord_milliseconds() < until:
                step = min(size, STEP)
                memcpy(target, source, step)
                target += step
                source += step
                size -= step
        PyErr_CheckSignals()
    return 0


cdef bint bytes_equal(const char *left, const char *right, Py_ssize_t size) except -1:
    """Whether two blocks of `size` bytes hold the same bytes."""
    cdef Py_ssize_t step
    cdef int64_t until
    cdef bint same = True
    if left == right:
        return True
    if size <= SMALL:
        return memcmp(left, right, size) == 0
    while size > 0 and same:
        with nogil:
            until = flatrecord_milliseconds() + SLICE
            while size > 0 and same and flatrecord_milliseconds() < until:
                step = min(size, STEP)
                same = memcmp(left, right, step) == 0
                left += step
                right += step
                size -= step
        PyErr_CheckSignals()
    return same


cdef struct Walk:
    # Where a strided copy stands. The target is filled in C order.
    char *target
    const char *row  # the source's row that is being read: the element at index 0 of the last axis
    Py_ssize_t itemsize
    Py_ssize_t left  # elements not yet copied
    int last  # the last axis
    Py_ssize_t shape[MAX_DIMS]
    Py_ssize_t strides[MAX_DIMS]
    Py_ssize_t index[MAX_DIMS]


cdef void copy_row(
    char *target, const char *source, Py_ssize_t count, Py_ssize_t stride, Py_ssize_t itemsize
) noexcept nogil:
    cdef Py_ssize_t i
    if stride == itemsize:
        memcpy(target, source, count * itemsize)
    # A memcpy of a constant size compiles to one load and one store, and asks for no alignment.
    elif itemsize == 1:
        for i in range(count):
            target[i] = source[i * stride]
    elif itemsize == 2:
        for i in range(count):
            memcpy(target + i * 2, source + i * stride, 2)
    elif itemsize == 4:
        for i in range(count):
            memcpy(target + i * 4, source + i * stride, 4)
    elif itemsize == 8:
        for i in range(count):
            memcpy(target + i * 8, source + i * stride, 8)
    elif itemsize == 16:
        for i in range(count):
            memcpy(target + i * 16, source + i * stride, 16)
    else:
        for i in range(count):
            memcpy(target + i * itemsize, source + i * stride, itemsize)


cdef void walk_on(Walk *walk, Py_ssize_t budget) noexcept nogil:
    """Copy elements until all are copied or about `budget` bytes of work are done."""
    cdef int last = walk.last, axis
    cdef Py_ssize_t stride = walk.strides[last], itemsize = walk.itemsize
    cdef Py_ssize_t cost = itemsize if stride == itemsize else max(itemsize, ELEMENT_COST)
    cdef Py_ssize_t count
    while walk.left > 0 and budget > 0:
        count = min(walk.shape[last] - walk.index[last], max(budget // cost, 1))
        copy_row(walk.target, walk.row + walk.index[last] * stride, count, stride, itemsize)
        walk.target += count * itemsize
        walk.left -= count
        budget -= count * cost
        walk.index[last] += count
        if walk.index[last] < walk.shape[last]:
            continue
        walk.index[last] = 0
        axis = last - 1
        while axis >= 0:
            walk.index[axis] += 1
            walk.row += walk.strides[axis]
            if walk.index[axis] < walk.shape[axis]:
                break
            walk.row -= walk.strides[axis] * walk.shape[axis]
            walk.index[axis] = 0
            axis -= 1


cdef int copy_strided(
    char *target,
    const char *source,
    int ndim,
    const Py_ssize_t *shape,
    const Py_ssize_t *strides,
    Py_ssize_t itemsize,
) except -1:
    """Write a strided array of at most 64 axes into `target` in C order.

    `shape` is in elements, `strides` in bytes (of any sign, zero for a broadcast axis); `source`
    points at the element with index 0 on every axis.
    """
    cdef Walk walk
    cdef int axis
    cdef int64_t until
    walk.target = target
    walk.row = source
    walk.itemsize = itemsize
    walk.left = 1
    walk.last = -1
    for axis in range(ndim):
        walk.left *= shape[axis]
        if shape[axis] == 1:
            continue
        # Two axes that lie behind one another in memory are walked as one.
        if walk.last >= 0 and walk.strides[walk.last] == shape[axis] * strides[axis]:
            walk.shape[walk.last] *= shape[axis]
            walk.strides[walk.last] = strides[axis]
            continue
        walk.last += 1
        walk.shape[walk.last] = shape[axis]
        walk.strides[walk.last] = strides[axis]
        walk.index[walk.last] = 0
    if walk.last < 0:
        walk.last = 0
        walk.shape[0] = 1
        walk.strides[0] = itemsize
        walk.index[0] = 0
    if itemsize == 0:
        return 0
    if walk.left * itemsize <= SMALL:
        walk_on(&walk, PY_SSIZE_T_MAX)
        return 0
    while walk.left > 0:
        with nogil:
            until = flatrecord_milliseconds() + SLICE
            while walk.left > 0 and flatrecord_milliseconds() < until:
                walk_on(&walk, STEP)
        PyErr_CheckSignals()
    return 0
