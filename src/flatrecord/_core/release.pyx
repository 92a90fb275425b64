"""Arrays become ndarrays or tensors, all or nothing.

The Arrays of a record leave it from the last to the first. Each gives up its memory where nobody
else can reach it. Arrays that share memory (tied weights) are put off until the rest is done: only then
is it known whether all who share it are leaving together.
"""

from cpython.bytes cimport PyBytes_CheckExact
from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject

from collections import OrderedDict
from copy import deepcopy
from weakref import getweakrefcount

cimport numpy as cnp
from numpy cimport ndarray

from .array cimport Array, check_copy, extent_of, give_memory, given_up, let_go, payload_of, readable_header
from .buffer cimport BORROWED, SHARED, Buffer, duplicate
from .entries cimport Entries, check_keep_input, entries_of, metadata_of, put_first, set_metadata, take_out
from .errors cimport add_name
from .holders cimport IMMUTABLE, SEEN, SOLE, Holder, Trail, account, follow, has_references, is_lone, is_sole, item, key_of
from .npy cimport Header
from .ownership cimport copies
from .views cimport is_array_of, view_over

cnp.import_array()

cdef enum:
    SIGNALS_EVERY = 256  # entries


cdef object come_out(Entries record, keep_input, copy, form):
    """Views on a record's Arrays, beside it or in its place, all or nothing.

    Parameters
    ----------
    form : None or the `Form` of an adapter
        What the views are; None for ndarrays.

    Returns
    -------
    list, or collections.OrderedDict
        The latter, with the keys and the metadata, if there is a `form`.
    """
    cdef Py_ssize_t offset, i
    cdef list names, arrays, views
    cdef dict entries
    cdef Header header
    cdef object state_dict = None, metadata = None
    check_copy(copy)
    check_keep_input(keep_input)
    entries = entries_of(record).copy()
    names, arrays = list(entries), list(entries.values())
    if form is not None:
        state_dict = OrderedDict.fromkeys(names)  # to be filled without further memory, as there is no way back then
        metadata = metadata_of(record)
        if metadata is not None:
            state_dict._metadata = deepcopy(metadata)
    for i in range(len(names)):
        try:
            header = readable_header(<Array?> arrays[i], &offset)
            if form is not None:
                form.check(header.descr)
        except BaseException as error:
            add_name(error, names[i])
            raise
    if keep_input:
        views = show(names, arrays, copy, form)
    else:
        for name in names:
            entries[name] = None  # the names stay, to put all back without further memory
        try:
            take_out(record, entries, names, arrays)
            if form is not None and len(state_dict) != len(names):
                state_dict = OrderedDict.fromkeys(names)
                if metadata is not None:
                    state_dict._metadata = metadata
            views = release(names, arrays, copy, form)
        except BaseException as error:
            for i in range(len(names)):
                entries[names[i]] = arrays[i]
            put_first(record, entries, error)
            raise
        set_metadata(record, None)
    if form is None:
        return views
    for i in range(len(names)):
        state_dict[<object> item(names, i)] = <object> item(views, i)
    return state_dict


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
                take_back(array)
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
    # A weak reference can bring an Array back that its container has let go.
    cdef bint sole = is_sole(<PyObject *> array) and getweakrefcount(array) == 0
    cdef Buffer payload
    cdef Holder holder
    if sole and form is None and copy is not True and is_lone(<PyObject *> array.memory, 1) and is_array_of(array.memory, header):
        cnp.PyArray_ENABLEFLAGS(<ndarray> array.memory, cnp.NPY_ARRAY_WRITEABLE)
        return array.memory
    payload_of(array)
    holder = follow(<PyObject *> array.memory, 0, None, &trail)
    if not sole or not is_sole(<PyObject *> array.memory) or holder == SEEN or (holder == IMMUTABLE and is_shown_elsewhere(array)):
        shared.setdefault(key_of(&trail), []).append(i)
        return None
    payload = <Buffer> array.memory
    if copy is not True and holder == SOLE:
        payload.surrendered = True
        return view_over(form, header, payload, offset, True)
    if copy is False:
        return borrowed_back(array, header, form)
    if payload.ownership == BORROWED:
        return view_over(form, header, given_up(duplicate(payload, offset)), 0, True)
    payload = duplicate(payload, offset)
    become(array, header, offset, payload)
    return view_over(form, array.header, payload, 0, True)


cdef bint is_shown_elsewhere(Array array):
    """Whether others may show the immutable memory of `array` by a Buffer of their own, other entries among them."""
    cdef object owner = payload_of(array).owner
    return not (PyBytes_CheckExact(owner) and has_references(<PyObject *> owner, 2))  # the Buffer's and `owner`


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
    cdef list distinct = [], headers = [], pointers = [], sizes = [], copied = []
    cdef Py_ssize_t offset, j, known, failed = 0
    cdef Trail trail
    cdef Holder holder = SOLE
    cdef bint free = True  # nobody else has the Arrays
    cdef Array array
    cdef Buffer buffer
    cdef char *pointer
    at[0] = members[0]
    for i in members:
        counts[id(shells[i])] = counts.get(id(shells[i]), 0) + 1
        if counts[id(shells[i])] == 1:
            distinct.append(shells[i])
    for j in range(len(distinct)):
        known = counts[id(distinct[j])] + 1  # in `shells` and in `distinct`
        free = free and has_references(item(distinct, j), known) and getweakrefcount(distinct[j]) == 0
        array = distinct[j]
        payload_of(array)  # so that what follows finds it
        account(<PyObject *> array.memory, accounted)
    for array in distinct:
        holder = max(holder, follow(<PyObject *> array.memory, 0, accounted, &trail))
        free = free and has_references(<PyObject *> array.memory, accounted[<size_t> <PyObject *> array.memory])
    for array in distinct:
        header = readable_header(array, &offset)
        headers.append((header, offset))
        sizes.append(extent_of(array, &pointer) - offset)
        pointers.append(<size_t> pointer + offset)
    cdef dict places = {id(array): j for j, array in enumerate(distinct)}
    if copy is False and not (free and holder == SOLE):
        for i in members:
            at[0] = i
            results[i] = borrowed_back(shells[i], headers[places[id(shells[i])]][0], form)
        return 0
    cdef list buffers = []
    for array in distinct:
        buffers.append(payload_of(array))
    if copy is True or not (free and holder == SOLE):
        try:
            buffers = copies(pointers, sizes, &failed)
        except BaseException:
            for i in members:
                if places[id(shells[i])] == failed:
                    at[0] = i
                    break
            raise
        for j in range(len(headers)):
            headers[j] = headers[j][0], 0
        if free and holder != SEEN:
            # At first what may fail: of some that have their copies and some that have not, the former would share no memory with
            # the latter.
            for j in range(len(distinct)):
                array = distinct[j]
                keep_start(array, headers[j][0], <size_t> pointers[j] - <size_t> payload_of(array).pointer)
                copied.append(headers[j][0])
            for j in range(len(distinct)):
                give_memory(<Array> item(distinct, j), <Header> item(copied, j), given_up(<Buffer> item(buffers, j)))
    for buffer in buffers:
        given_up(buffer)
    for i in members:
        at[0] = i
        j = places[id(shells[i])]
        results[i] = view_over(form, headers[j][0], buffers[j], headers[j][1], True)
    return 0


cdef object borrowed_back(Array array, Header header, form):
    """A view on memory that its owner has shared by his own word; a ValueError if it is not such memory."""
    cdef Buffer payload = payload_of(array)
    cdef object owner = payload.owner
    if payload.ownership == BORROWED and is_array_of(owner, header) and owner.flags.writeable:
        return view_over(form, header, payload, 0, True)
    reason = "the memory is immutable" if payload.ownership == SHARED else "the memory is still in use"
    raise ValueError(f"copy=False, but {reason} and has to be copied")


cdef int become(Array array, Header header, Py_ssize_t offset, Buffer copied) except -1:
    """Let `array` have its elements, which began at `offset`, in `copied`, and let go of the old memory.

    What was received as one `bytes` takes no more than this one entry twice.
    """
    keep_start(array, header, offset)
    give_memory(array, header, given_up(copied))
    return 0


cdef int keep_start(Array array, Header header, Py_ssize_t offset) except -1:
    """Let `header`, which was read from the payload of `array` if it is not its own, stand before the elements alone."""
    if offset > 0:  # it has just been parsed, and is nobody else's yet
        header.preamble = payload_of(array).pointer[:offset]
        header.dtype = array.header.dtype  # in the words in which it was given
    return 0


cdef list show(list names, list arrays, copy, form):
    """Views on Arrays that stay as they are: read-only, or with `copy` writable and independent.

    Raises
    ------
    Exception
        Whatever went wrong, naming the key.
    """
    cdef Py_ssize_t offset, at = 0
    cdef char *pointer
    cdef list results = [], headers = [], pointers = [], sizes = []
    cdef Array array
    cdef Header header
    try:
        for at in range(len(arrays)):
            array = <Array?> arrays[at]
            header = readable_header(array, &offset)
            if copy is not True:
                results.append(view_over(form, header, payload_of(array), offset, False))
            else:
                headers.append(header)
                sizes.append(extent_of(array, &pointer) - offset)
                pointers.append(<size_t> pointer + offset)
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
    if form is None and type(array.memory) is not Buffer:
        return array.memory
    if form is None and isinstance(payload_of(array).owner, ndarray):
        return payload_of(array).owner
    return view_over(form, array.header, given_up(payload_of(array)), 0, True)


cdef int take_back(Array array) noexcept:
    """Let `array` have the memory again that it has surrendered; an ndarray that it has given away it still has."""
    if type(array.memory) is Buffer:
        (<Buffer> array.memory).surrendered = False
    return 0


cdef inline int check_signals(Py_ssize_t i) except -1:
    if i % SIGNALS_EVERY == 0:
        PyErr_CheckSignals()
    return 0
