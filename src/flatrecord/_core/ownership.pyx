"""Take, snapshot, borrow or share: who owns the bytes afterwards.

For each payload this one question is answered here and nowhere else:

=========  =====================================================================================
take       not copied; the Buffer becomes the only holder
snapshot   copied once into memory of our own
borrow     not copied; the memory stays shared with somebody who may write to it
share      not copied; the memory is immutable, so it does not matter who else holds it
=========  =====================================================================================

What shares memory before shares memory afterwards: tied weights stay tied, and are there once.
"""

from cpython.bytes cimport PyBytes_CheckExact
from cpython.memoryview cimport PyMemoryView_FromObject

cimport numpy as cnp
from numpy cimport ndarray

from mmap import mmap as _mmap

from .buffer cimport BORROWED, SHARED, SNAPSHOT, TAKEN, Buffer, allocate, duplicate, hold, hold_exporter, snapshot
from .holders cimport IMMUTABLE, SOLE, Holder, Trail, immutable_owner
from .strided cimport copy_strided

cdef extern from "Python.h":
    void PyObject_GC_UnTrack(object value)

cnp.import_array()

cdef object MMAP = _mmap


cdef bint is_contiguous(ndarray array):
    return cnp.PyArray_IS_C_CONTIGUOUS(array) or cnp.PyArray_IS_F_CONTIGUOUS(array)


cdef bint is_mapping(Trail *trail):
    """Whether the memory at the end of `trail` is a mapped file."""
    return trail.root != NULL and type(<object> trail.root) is MMAP


cdef Buffer snapshot_strided(ndarray array):
    """Copy the elements of `array` into memory of our own, in C order."""
    cdef Buffer buffer = allocate(cnp.PyArray_NBYTES(array), NULL)
    copy_strided(
        buffer.pointer,
        cnp.PyArray_BYTES(array),
        cnp.PyArray_NDIM(array),
        <Py_ssize_t *> cnp.PyArray_DIMS(array),
        <Py_ssize_t *> cnp.PyArray_STRIDES(array),
        cnp.PyArray_ITEMSIZE(array),
    )
    return buffer


cdef bint may_take(Py_ssize_t nbytes, Trail *trail):
    """Whether taking `nbytes` keeps little else alive: of a small view on a large base it would keep all."""
    return nbytes >= trail.nbytes // 2


cdef object admit_ndarray(ndarray array, copy, bint popped, Holder holder, Trail *trail):
    """Decide for the memory of one ndarray.

    Parameters
    ----------
    copy : None, True or False
        Only when needed, always, never: as in NumPy 2.
    popped : bool
        The caller has removed `array` from its container and holds the one reference that the
        container had.
    holder, trail
        What `follow` found.

    Returns
    -------
    Buffer or ndarray
        `array` itself where it was taken and has memory of its own: it stands for the Buffer that `buffer_on` makes.

    Raises
    ------
    ValueError
        If `copy` is False and the array is not contiguous.
    MemoryError
        If a snapshot is needed and there is no room for it.
    """
    cdef char *pointer = cnp.PyArray_BYTES(array)
    cdef Py_ssize_t nbytes = cnp.PyArray_NBYTES(array)
    if not is_contiguous(array):
        if copy is False:
            raise ValueError("copy=False, but the array is not contiguous and has to be copied")
        return snapshot_strided(array)
    if copy is not True and holder == IMMUTABLE:
        return hold(immutable_owner(<object> trail.root), pointer, nbytes, SHARED)
    if copy is False:
        # A memoryview keeps anyone from closing the mapping.
        return hold(PyMemoryView_FromObject(<object> trail.root) if is_mapping(trail) else array, pointer, nbytes, BORROWED)
    if copy is None and popped and holder == SOLE and may_take(nbytes, trail):
        return array if cnp.PyArray_BASE(array) == NULL else buffer_on(array)
    return snapshot(pointer, nbytes)


cdef Buffer buffer_on(ndarray array):
    """A Buffer on the memory of an ndarray that was taken."""
    cdef Buffer buffer = hold(array, cnp.PyArray_BYTES(array), cnp.PyArray_NBYTES(array), TAKEN)
    if cnp.PyArray_BASE(array) == NULL:
        PyObject_GC_UnTrack(buffer)  # such an ndarray leads to nothing that could lead back
    return buffer


cdef list admit_group(list arrays, bint popped, Holder holder, Trail *trail, Py_ssize_t *at):
    """Decide for ndarrays that share memory, of which no two are the same object.

    Parameters
    ----------
    arrays : list of ndarray
    popped : bool
        All have left their container, and may be taken if `holder` is SOLE.
    holder, trail
        What `follow` found for all of them.
    at : pointer, filled in
        The index of the array for which an error was raised.

    Returns
    -------
    list of Buffer
        The same Buffer for arrays on the same bytes.
    """
    cdef Py_ssize_t i, failed = 0
    cdef list results = [None] * len(arrays), pointers = [], sizes = [], contiguous = []
    cdef dict alike = {}
    cdef ndarray array
    for i in range(len(arrays)):
        at[0] = i
        array = arrays[i]
        if is_contiguous(array):
            contiguous.append(i)
            pointers.append(<size_t> cnp.PyArray_BYTES(array))
            sizes.append(cnp.PyArray_NBYTES(array))
            continue
        shown = <object> array
        key = <size_t> cnp.PyArray_BYTES(array), shown.shape, shown.strides, cnp.PyArray_ITEMSIZE(array)
        if key not in alike:
            alike[key] = snapshot_strided(array)
        results[i] = alike[key]
    if popped and holder == SOLE and may_take(sum(dict(zip(pointers, sizes)).values()), trail):
        for i in contiguous:
            array = arrays[i]
            key = <size_t> cnp.PyArray_BYTES(array), cnp.PyArray_NBYTES(array)
            if key not in alike:
                alike[key] = buffer_on(array)
            results[i] = alike[key]
        return results
    try:
        buffers = copies(pointers, sizes, &failed)
    except BaseException:
        if contiguous:
            at[0] = contiguous[failed]
        raise
    for i, buffer in zip(contiguous, buffers):
        results[i] = buffer
    return results


cdef list copies(list pointers, list sizes, Py_ssize_t *at):
    """Copy some runs of bytes, so that what overlaps there overlaps here.

    Parameters
    ----------
    pointers, sizes : list of int
        Addresses and lengths in bytes.
    at : pointer, filled in
        The index of the run for which an error was raised.

    Returns
    -------
    list of Buffer
    """
    cdef list order = sorted(range(len(pointers)), key=pointers.__getitem__)
    cdef list results = [None] * len(order)
    cdef Py_ssize_t first = 0, last, i
    cdef size_t start, end
    cdef Buffer whole
    while first < len(order):
        at[0] = order[first]
        start = pointers[at[0]]
        end = start + <size_t> sizes[at[0]]
        last = first + 1
        while last < len(order) and <size_t> pointers[order[last]] < end:
            end = max(end, <size_t> pointers[order[last]] + <size_t> sizes[order[last]])
            last += 1
        whole = snapshot(<const char *> start, end - start)
        for i in order[first:last]:
            if pointers[i] == start and sizes[i] == whole.nbytes:
                results[i] = whole
            else:
                results[i] = hold(whole, whole.pointer + (<size_t> pointers[i] - start), sizes[i], SNAPSHOT)
        first = last
    return results


cdef Buffer admit_exporter(exporter, copy):
    """Decide for the memory of a contiguous bytes-like object.

    Raises
    ------
    TypeError
        If `exporter` is not bytes-like.
    ValueError
        If it is not C-contiguous.
    """
    cdef object view, owner
    if PyBytes_CheckExact(exporter):
        view = exporter
    else:
        try:
            view = PyMemoryView_FromObject(exporter)
        except TypeError:
            raise TypeError(f"data must be a bytes-like object, got {type(exporter).__name__}") from None
        if not view.c_contiguous:
            raise ValueError("data must be C-contiguous")
    cdef Buffer buffer = hold_exporter(view)
    if copy is None:
        owner = immutable_owner(view)
        if owner is not None:
            return hold(owner, buffer.pointer, buffer.nbytes, SHARED)
    return buffer if copy is False else duplicate(buffer, 0)
