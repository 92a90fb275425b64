"""Arrays become ndarrays or tensors, all or nothing.

The Arrays of a record leave it from the last to the first. Each gives up its memory where nobody
else can reach it. Arrays that share memory (tied weights) are put off until the rest is done: only then
is it known whether all who share it are leaving together.
"""

from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject

from weakref import getweakrefcount

cimport numpy as cnp
from numpy cimport ndarray

from .array cimport Array, given_up, let_go, readable_header
from .buffer cimport BORROWED, SHARED, Buffer, duplicate
from .errors cimport add_name
from .holders cimport SEEN, SOLE, Holder, Trail, account, follow, has_references, is_sole, item, key_of
from .npy cimport Header
from .ownership cimport copies
from .views cimport is_array_of, view_over

cnp.import_array()

cdef enum:
    SIGNALS_EVERY = 256  # entries


cdef list release(list names, list arrays, copy, form):
    """Turn Arrays into writable views, each giving up its memory where nobody else can reach it.

    Parameters
    ----------
    names : list of str
        Keys, for messages.
    arrays : list of Array
        Each Array leaves its place, which becomes None, before the next is handled.
    copy : {None, True, False}
        Only where somebody else can reach the memory, always, never.
    form : None or the `Form` of an adapter
        What the views are; None for ndarrays.

    Returns
    -------
    list
        The views, in the order of `names`.

    Raises
    ------
    Exception
        Whatever went wrong, naming the key; `arrays` then holds every Array again.
    """
    cdef Py_ssize_t i = len(arrays), at = 0
    cdef list results = [None] * i
    cdef list shells = [None] * i  # the Arrays, which keep their memory until all have given theirs
    cdef dict shared = {}  # what Arrays that share memory have in common -> their indices
    cdef Array array = None
    try:
        while i > 0:
            i -= 1
            at = i
            array = <Array?> arrays[i]
            arrays[i] = None
            results[i] = give_up(array, i, copy, form, shared)
            shells[i] = array
            array = None
            check_signals(i)
        for members in shared.values():
            members.reverse()
            give_up_together(members, shells, results, copy, form, &at)
            PyErr_CheckSignals()
    except BaseException as error:
        results = None
        if array is not None:
            shells[at] = array
        for i in range(len(shells)):
            array = shells[i]
            if array is not None:
                array.payload.surrendered = False
                arrays[i] = array
        add_name(error, names[at])
        raise
    for array in shells:
        let_go(array)
    return results


cdef object give_up(Array array, Py_ssize_t i, copy, form, dict shared):
    """A view that takes over the memory of `array`, or a copy of it; None if that is put off.

    Taken over, the memory has two holders until `array` is emptied (`let_go`), or gets it back by
    being marked as not surrendered, once the view is gone.

    Parameters
    ----------
    array : Array
        To which the caller lends the one reference that its container had.
    i : int
        What is put into `shared` if the Array is put off.

    Raises
    ------
    TypeError, ValueError
        As `Array.numpy`; and where `copy` is False but somebody else can reach the memory.
    """
    cdef Py_ssize_t offset
    cdef Trail trail
    cdef Header header = readable_header(array, &offset)
    cdef Holder holder = follow(<PyObject *> array.payload, 0, None, &trail)
    # A weak reference can bring an Array back that its container has let go.
    if not is_sole(<PyObject *> array) or not is_sole(<PyObject *> array.payload) or getweakrefcount(array) > 0 or holder == SEEN:
        shared.setdefault(key_of(&trail), []).append(i)
        return None
    if copy is not True and holder == SOLE:
        array.payload.surrendered = True
        return view_over(form, header, array.payload, offset, True)
    if copy is False:
        return borrowed_back(array, header, form)
    if array.payload.ownership == BORROWED:
        return view_over(form, header, given_up(duplicate(array.payload, offset)), 0, True)
    become(array, header, offset, duplicate(array.payload, offset))
    return view_over(form, array.header, array.payload, 0, True)


cdef int give_up_together(list members, list shells, list results, copy, form, Py_ssize_t *at) except -1:
    """Do what `give_up` does for Arrays that share memory, with each other or with somebody else.

    Parameters
    ----------
    members : list of int
        Their indices in `shells`, where they are, and in `results`, where the views go.
    at : pointer, filled in
        The index for which an error was raised.
    """
    cdef dict counts = {}, accounted = {}
    cdef list distinct = [], headers = [], pointers = [], sizes = []
    cdef Py_ssize_t offset, j, known, failed = 0
    cdef Trail trail
    cdef Holder holder = SOLE
    cdef bint free = True  # nobody else has the Arrays
    cdef Array array
    cdef Buffer buffer
    at[0] = members[0]
    for i in members:
        counts[id(shells[i])] = counts.get(id(shells[i]), 0) + 1
        if counts[id(shells[i])] == 1:
            distinct.append(shells[i])
    for j in range(len(distinct)):
        known = counts[id(distinct[j])] + 1  # in `shells` and in `distinct`
        free = free and has_references(item(distinct, j), known) and getweakrefcount(distinct[j]) == 0
        array = distinct[j]
        account(<PyObject *> array.payload, accounted)
    for array in distinct:
        holder = max(holder, follow(<PyObject *> array.payload, 0, accounted, &trail))
        free = free and has_references(<PyObject *> array.payload, accounted[<size_t> <PyObject *> array.payload])
    for array in distinct:
        header = readable_header(array, &offset)
        headers.append((header, offset))
        pointers.append(<size_t> array.payload.pointer + offset)
        sizes.append(array.payload.nbytes - offset)
    cdef dict places = {id(array): j for j, array in enumerate(distinct)}
    if copy is False and not (free and holder == SOLE):
        for i in members:
            at[0] = i
            results[i] = borrowed_back(shells[i], headers[places[id(shells[i])]][0], form)
        return 0
    cdef list buffers = [array.payload for array in distinct]
    if copy is True or not (free and holder == SOLE):
        try:
            buffers = copies(pointers, sizes, &failed)
        except BaseException:
            at[0] = [i for i in members if places[id(shells[i])] == failed][0]
            raise
        headers = [(header, 0) for header, _ in headers]
        if free and holder != SEEN:
            for j in range(len(distinct)):
                array = distinct[j]
                become(array, headers[j][0], pointers[j] - <size_t> array.payload.pointer, buffers[j])
    for buffer in buffers:
        given_up(buffer)
    for i in members:
        at[0] = i
        j = places[id(shells[i])]
        results[i] = view_over(form, headers[j][0], buffers[j], headers[j][1], True)
    return 0


cdef object borrowed_back(Array array, Header header, form):
    """A view on memory that its owner has shared by his own word; a ValueError if it is not such memory."""
    cdef object owner = array.payload.owner
    if array.payload.ownership == BORROWED and is_array_of(owner, header) and owner.flags.writeable:
        return view_over(form, header, array.payload, 0, True)
    reason = "the memory is immutable" if array.payload.ownership == SHARED else "the memory is still in use"
    raise ValueError(f"copy=False, but {reason} and has to be copied")


cdef int become(Array array, Header header, Py_ssize_t offset, Buffer copied) except -1:
    """Let `array` have its elements, which began at `offset`, in `copied`, and let go of the old memory.

    What was received as one `bytes` takes no more than this one entry twice.
    """
    if offset > 0:  # `header` has just been parsed, and is nobody else's yet
        header.preamble = array.payload.pointer[:offset]
        header.dtype = array.header.dtype  # in the words in which it was given
    array.header, array.payload = header, given_up(copied)
    return 0


cdef list show(list names, list arrays, copy, form):
    """Views on Arrays that stay as they are: read-only, or with `copy` writable and independent.

    Raises
    ------
    Exception
        Whatever went wrong, naming the key.
    """
    cdef Py_ssize_t offset, at = 0
    cdef list results = [], headers = [], pointers = [], sizes = []
    cdef Array array
    cdef Header header
    try:
        for at in range(len(arrays)):
            array = <Array?> arrays[at]
            header = readable_header(array, &offset)
            if copy is not True:
                results.append(view_over(form, header, array.payload, offset, False))
            else:
                headers.append(header)
                pointers.append(<size_t> array.payload.pointer + offset)
                sizes.append(array.payload.nbytes - offset)
        for at, buffer in enumerate(copies(pointers, sizes, &at)):
            results.append(view_over(form, headers[at], given_up(buffer), 0, True))
    except BaseException as error:
        add_name(error, names[at])
        raise
    return results


cdef object original_of(Array array, form):
    """Undo the making of `array`: the ndarray itself where it was not copied, else a view with its values.

    For Arrays that nobody has yet.
    """
    if form is None and isinstance(array.payload.owner, ndarray):
        return array.payload.owner
    return view_over(form, array.header, given_up(array.payload), 0, True)


cdef inline int check_signals(Py_ssize_t i) except -1:
    if i % SIGNALS_EVERY == 0:
        PyErr_CheckSignals()
    return 0
