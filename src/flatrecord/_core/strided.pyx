"""Copies of arrays that are not contiguous.

The target is filled in C order, so that along its last axis it is written to line by line. Where the source is walked
line by line along another axis (a transposed array), the copy goes tile by tile: what lies in some lines of the source
is gathered into a buffer of at most 32 KiB and turned there. So each line of the source is read once, and each of the
target written once, whatever the strides are.

A unit of work is a row of tiles, or of elements, or a stretch of one; a piece, which one thread does at a time, has as many of
them as make up about a huge page.
"""

from .copying cimport PIECE, SMALL, fill_pages
from .workers cimport do_pieces

cdef extern from "strided.h":
    void flatrecord_gather(
        char *target, const char *source, Py_ssize_t count, Py_ssize_t stride, Py_ssize_t itemsize
    ) noexcept nogil
    void flatrecord_turn(
        char *target,
        Py_ssize_t target_row,
        const char *source,
        Py_ssize_t source_row,
        Py_ssize_t rows,
        Py_ssize_t columns,
        Py_ssize_t itemsize,
    ) noexcept nogil

cdef enum:
    MAX_DIMS = 64  # NumPy 2's own limit
    LINE = 64  # bytes
    # Measured, with tiles of 64 to 512 bytes each way: fastest for elements of 1 to 8 bytes, and least dependent on the strides.
    TILE_READ = 128  # bytes of a tile along the source's axis
    TILE_WRITTEN = 256  # and along the target's
    NARROW = 32  # bytes of a tile along the source's axis for which the buffer costs more than it gives
    ELEMENT_COST = 8  # bytes that an element counts for at least, so that pieces of small ones take no longer


cdef struct Axis:
    Py_ssize_t length, stride, target_stride  # in elements, and bytes


cdef struct Plan:
    char *target
    const char *source
    Py_ssize_t itemsize
    Axis outer[MAX_DIMS]  # the axes that are neither of the next two
    int outers
    Axis along  # the axis along which the source is read, of length 1 where that is the last
    Axis last  # the axis along which the target is written
    Py_ssize_t lead, width  # elements of `along` in the first unit, and in each of the others
    Py_ssize_t reach  # elements of `last` in a unit
    Py_ssize_t cuts, stretches  # units along these two axes
    Py_ssize_t units  # in all
    Py_ssize_t grouped  # units in a piece


cdef void copy_tiles(
    Plan *plan, char *target, const char *source, Py_ssize_t rows, Py_ssize_t columns
) noexcept nogil:
    """Copy `rows` elements of the axis `along`, for each of `columns` elements of the last axis."""
    cdef char buffer[TILE_READ * TILE_WRITTEN]
    cdef Py_ssize_t itemsize = plan.itemsize, stride = plan.last.stride, most = max(TILE_WRITTEN // itemsize, 1), count, j
    if rows * itemsize <= NARROW:
        for j in range(rows):
            flatrecord_gather(target + j * plan.along.target_stride, source + j * plan.along.stride, columns, stride, itemsize)
        return
    while columns > 0:
        count = min(most, columns)
        for j in range(count):
            flatrecord_gather(buffer + j * TILE_READ, source + j * stride, rows, plan.along.stride, itemsize)
        flatrecord_turn(target, plan.along.target_stride, buffer, TILE_READ, rows, count, itemsize)
        target += count * itemsize
        source += count * stride
        columns -= count


cdef void copy_units(void *job, Py_ssize_t i) noexcept nogil:
    """Do piece `i` of a plan."""
    cdef Plan *plan = <Plan *> job
    cdef Py_ssize_t unit = i * plan.grouped, end = min(unit + plan.grouped, plan.units), row, rows, column, columns, _turn
    cdef Py_ssize_t stretch = unit % plan.stretches, cut = unit // plan.stretches % plan.cuts
    cdef Py_ssize_t rest = unit // plan.stretches // plan.cuts
    cdef Py_ssize_t index[MAX_DIMS]
    cdef int axis
    cdef char *target = plan.target
    cdef const char *source = plan.source
    for axis in range(plan.outers - 1, -1, -1):
        index[axis] = rest % plan.outer[axis].length
        rest //= plan.outer[axis].length
        target += index[axis] * plan.outer[axis].target_stride
        source += index[axis] * plan.outer[axis].stride
    for _turn in range(unit, end):
        row = 0 if cut == 0 else plan.lead + (cut - 1) * plan.width
        rows = min(plan.lead + cut * plan.width, plan.along.length) - row
        column = stretch * plan.reach
        columns = min(plan.reach, plan.last.length - column)
        if plan.along.length == 1:
            flatrecord_gather(
                target + column * plan.itemsize, source + column * plan.last.stride, columns, plan.last.stride, plan.itemsize
            )
        else:
            copy_tiles(
                plan,
                target + row * plan.along.target_stride + column * plan.itemsize,
                source + row * plan.along.stride + column * plan.last.stride,
                rows,
                columns,
            )
        stretch += 1
        if stretch < plan.stretches:
            continue
        stretch = 0
        cut += 1
        if cut < plan.cuts:
            continue
        cut = 0
        for axis in range(plan.outers - 1, -1, -1):
            index[axis] += 1
            target += plan.outer[axis].target_stride
            source += plan.outer[axis].stride
            if index[axis] < plan.outer[axis].length:
                break
            target -= plan.outer[axis].target_stride * plan.outer[axis].length
            source -= plan.outer[axis].stride * plan.outer[axis].length
            index[axis] = 0


cdef int merge_axes(Plan *plan, int ndim, const Py_ssize_t *shape, const Py_ssize_t *strides) noexcept nogil:
    """Write the axes into `plan.outer`, as few as can be, and say how many they are: at least one.

    Two axes that lie behind one another in memory are one, and axes of length 1 are none.
    """
    cdef int axis, merged = 0
    cdef Py_ssize_t step = plan.itemsize
    for axis in range(ndim):
        if shape[axis] == 1:
            continue
        if merged > 0 and plan.outer[merged - 1].stride == shape[axis] * strides[axis]:
            plan.outer[merged - 1].length *= shape[axis]
            plan.outer[merged - 1].stride = strides[axis]
            continue
        plan.outer[merged].length, plan.outer[merged].stride = shape[axis], strides[axis]
        merged += 1
    if merged == 0:
        plan.outer[0].length, plan.outer[0].stride = 1, plan.itemsize
        merged = 1
    for axis in range(merged - 1, -1, -1):
        plan.outer[axis].target_stride = step
        step *= plan.outer[axis].length
    return merged


cdef inline Py_ssize_t distance(Axis *axis) noexcept nogil:
    return -axis.stride if axis.stride < 0 else axis.stride


cdef int nearest(Plan *plan, int axes) noexcept nogil:
    """The axis along which the source's elements lie closest together; of several such, the last one if it is among them."""
    cdef int axis, found = axes - 1
    for axis in range(axes):
        # What is broadcast along an axis of stride 0 is read once whatever the order is.
        if plan.outer[axis].stride != 0 and distance(&plan.outer[axis]) < distance(&plan.outer[found]):
            found = axis
    return found


cdef Py_ssize_t make_plan(
    Plan *plan,
    char *target,
    const char *source,
    int ndim,
    const Py_ssize_t *shape,
    const Py_ssize_t *strides,
    Py_ssize_t itemsize,
) noexcept nogil:
    """Fill in a plan and say how many pieces it has."""
    cdef int axis, axes, along
    cdef Py_ssize_t astray, most
    plan.target, plan.source, plan.itemsize = target, source, itemsize
    axes = merge_axes(plan, ndim, shape, strides)
    along = nearest(plan, axes) if itemsize <= TILE_READ else axes - 1
    plan.last = plan.outer[axes - 1]
    plan.along.length = plan.lead = plan.width = 1
    plan.along.stride = plan.along.target_stride = 0
    most = PIECE // max(itemsize, ELEMENT_COST)  # elements in a piece, or in one element's case more
    if along < axes - 1:
        plan.along = plan.outer[along]
        plan.width = TILE_READ // itemsize
        astray = <Py_ssize_t> (<size_t> source % LINE)
        # So that later cuts are where lines begin, and no line is in two tiles.
        plan.lead = min(plan.width - (astray // itemsize if plan.along.stride == itemsize else 0), plan.along.length)
        most //= min(plan.width, plan.along.length)
    plan.reach = min(max(most, TILE_WRITTEN // itemsize, 1), plan.last.length)
    plan.cuts = 1 + (plan.along.length - plan.lead + plan.width - 1) // plan.width
    plan.stretches = (plan.last.length + plan.reach - 1) // plan.reach
    plan.units, plan.outers = plan.cuts * plan.stretches, 0
    for axis in range(axes - 1):
        if axis != along:
            plan.units *= plan.outer[axis].length
            plan.outer[plan.outers] = plan.outer[axis]
            plan.outers += 1
    plan.grouped = max(most // plan.reach, 1)
    return (plan.units + plan.grouped - 1) // plan.grouped


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
    cdef Plan plan
    cdef Py_ssize_t nbytes = itemsize, pieces, i
    cdef int axis
    for axis in range(ndim):
        nbytes *= shape[axis]
    if nbytes == 0:
        return 0
    pieces = make_plan(&plan, target, source, ndim, shape, strides, itemsize)
    if nbytes <= SMALL:
        for i in range(pieces):
            copy_units(&plan, i)
        return 0
    fill_pages(target, nbytes)
    do_pieces(copy_units, &plan, pieces)
    return 0
