"""Moving entries between a container and a record, all or nothing.

Entries leave their container from the last to the first. What has left is then always the end of the
container, so that after a failure it is enough to append it again: the order is the old one, in any
kind of mapping, without a deletion that might fail in its turn.

Undoing a failure allocates as little as it can: whatever needs memory, a hash or a caller's code is done
before the first entry leaves.
"""

from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject, PyObject_DelItem, PyObject_GetItem

from weakref import getweakrefcount

cimport numpy as cnp
from numpy cimport ndarray

from .array cimport (
    Array,
    array_of_ndarray,
    check_ndarray,
    duplicate_array,
    is_immutable,
    let_go,
    ndarray_over,
    readable_header,
)
from .buffer cimport BORROWED, SHARED, Buffer, allocate, is_sole, surrender
from .copying cimport copy_bytes
from .npy cimport Header

cnp.import_array()

cdef enum:
    SIGNALS_EVERY = 256  # entries


cdef int check_value(name, value, copy) except -1:
    """Raise if `value` cannot become an entry of a record, naming the key."""
    if isinstance(value, Array):
        return 0
    if not isinstance(value, ndarray):
        raise TypeError(f"key {name!r}: a value must be an Array or a NumPy array, got {type_name(value)}")
    try:
        check_ndarray(<ndarray> value, copy)
    except (TypeError, ValueError) as error:
        add_name(error, name)
        raise
    return 0


cdef Array admit(value, copy, bint popped, bint *lives_on):
    """The Array that stands for `value` in a record; `lives_on` as in `admit_ndarray`."""
    lives_on[0] = False
    if not isinstance(value, Array):
        return array_of_ndarray(Array, <ndarray?> value, copy, popped, lives_on)
    # An Array is immutable, so that its new holder and all others may share it; duplicated is only
    # what the caller asks for, which keep_input=True does.
    if copy is True or (copy is None and not popped and not is_immutable(<Array> value)):
        return duplicate_array(<Array> value)
    lives_on[0] = True
    return <Array> value


cdef int absorb(source, list places, dict staged, bint keep_input, copy) except -1:
    """Turn the entries of a container into Arrays.

    Parameters
    ----------
    source : mapping or list
        Where the entries are. Without `keep_input` each leaves it before the next is handled.
    places : list
        Keys or indices of the entries in `source`, in its order.
    staged : dict
        Has a key for each place, in the same order; the Arrays become its values. The keys are plain
        `str`, so that setting their values cannot fail.
    keep_input : bool
        Leave `source` as it is.
    copy : {None, True, False}
        As for `Array`.

    Raises
    ------
    Exception
        Whatever went wrong, naming the key; `source` then holds every entry, in the old order.
    """
    cdef list names = list(staged)
    cdef Py_ssize_t i, count = len(places)
    cdef list originals = [None] * count  # what goes back as it is, because it costs nothing to keep
    cdef list refused = []  # (place, value): a hostile key cannot be hashed
    cdef list rebuilt = []
    cdef dict kept = {}  # id of an ndarray among the originals -> where it is there
    cdef list namesakes = []  # where the array in hand was met before, under other names
    cdef object value = None
    cdef bint fetched = False, lives_on
    cdef Py_ssize_t j
    for i in range(count):
        check_value(names[i], PyObject_GetItem(source, places[i]), copy)
        check_signals(i)
    i = count
    try:
        while i > 0:
            i -= 1
            fetched = False
            namesakes = []
            value = PyObject_GetItem(source, places[i])
            fetched = True
            if not keep_input:
                PyObject_DelItem(source, places[i])
            # One array under several names: our own keeping of it must not count as a holder.
            if kept:
                namesakes = kept.pop(id(value), namesakes)
            for j in namesakes:
                originals[j] = None
            staged[names[i]] = admit(value, copy, not keep_input, &lives_on)
            if lives_on and not keep_input:
                originals[i] = value
                if not isinstance(value, Array):
                    for j in namesakes:
                        originals[j] = value
                    namesakes.append(i)
                    kept[id(value)] = namesakes
            elif isinstance(value, Array):
                originals[i] = staged[names[i]]
            value = None
            check_signals(i)
    except BaseException as error:
        if not keep_input:
            if value is not None:
                for j in namesakes:
                    originals[j] = value
            put_back(source, places, names, originals, staged, i, value if fetched else None, refused, rebuilt)
            report(error, refused, rebuilt)
        else:
            add_note(error, "the input is as it was")
        add_name(error, names[i])
        raise
    return 0


cdef str type_name(value):
    """The name of a value's type, with its module where another could have the same name."""
    cls = type(value)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


cdef int put_back(
    source,
    list places,
    list names,
    list originals,
    dict staged,
    Py_ssize_t first,
    value,
    list refused,
    list rebuilt,
) except -1:
    """Append the entries from `first` on to `source`, each in the form in which it left.

    `value` is that of the first where it has been fetched but not staged. What `source` does not accept
    goes to `refused`, as a pair of place and value; the names of what is an equal copy by now, to `rebuilt`.
    """
    cdef Py_ssize_t i
    cdef object array
    if staged[names[first]] is None and (value is None or is_there(source, places[first])):
        first += 1  # it has not left
    for i in range(first, len(places)):
        array = staged[names[i]]
        staged[names[i]] = None
        if originals[i] is not None:
            value = originals[i]
        elif array is not None:
            try:
                if (<Array> array).payload.owner is None:
                    rebuilt.append(names[i])
                value = original_of(<Array> array)
            except MemoryError:
                value = array
        array = None
        # A second Ctrl-C can interrupt a container that runs Python code: try twice.
        if not (accepts(source, places[i], value) or accepts(source, places[i], value)):
            refused.append((places[i], value))
        value = None
    return 0


cdef bint accepts(source, place, value) noexcept:
    """Put an entry at the end of a container; False if that raises."""
    try:
        if isinstance(source, list):
            (<list> source).append(value)
        else:
            source[place] = value
    except BaseException:
        return False
    return True


cdef bint is_there(source, place) noexcept:
    """Whether an entry is still in its container; False if that cannot be said."""
    try:
        return place < len(source) if isinstance(source, list) else place in source
    except BaseException:
        return False


cdef int report(error, list refused, list rebuilt) noexcept:
    """Say in `error` what became of the entries."""
    try:
        if refused:
            error.not_put_back = refused
            keys = [key for key, _ in refused]
            add_note(error, f"the input did not take back {keys!r:.200}: see this exception's not_put_back")
        else:
            add_note(error, "every entry was put back into the input, in the old order")
        if rebuilt:
            add_note(error, f"as equal copies of arrays that nobody held any more: {rebuilt!r:.200}")
    except Exception:
        pass  # the error itself matters more
    return 0


cdef list release(list names, list arrays, copy):
    """Turn Arrays into writable ndarrays, each giving up its memory where nobody else can reach it.

    Parameters
    ----------
    names : list of str
        Keys, for messages.
    arrays : list of Array
        Each Array leaves its place, which becomes None, before the next is handled.
    copy : {None, True, False}
        Only where somebody else can reach the memory, always, never.

    Returns
    -------
    list of ndarray
        In the order of `names`.

    Raises
    ------
    Exception
        Whatever went wrong, naming the key; `arrays` then holds every Array again.
    """
    cdef Py_ssize_t i = len(arrays), count = len(arrays)
    cdef list results = [None] * count
    cdef list shells = [None] * count  # the Arrays, which keep their memory until all have given theirs
    cdef Array array = None
    try:
        while i > 0:
            i -= 1
            array = <Array?> arrays[i]
            arrays[i] = None
            results[i] = give_up(array, copy)
            shells[i] = array
            array = None
            check_signals(i)
    except BaseException as error:
        results = None
        if array is not None:
            shells[i] = array
        count = i
        for array in shells[count:]:
            take_back(array)
            arrays[count] = array
            count += 1
        add_name(error, names[i])
        raise
    for array in shells:
        let_go(array)
    return results


cdef object give_up(Array array, copy):
    """A writable ndarray that takes over the memory of `array`, or a copy of it.

    Taken over, the memory has two holders until `array` is emptied (`let_go`), or gets it back
    (`take_back`, once the ndarray is gone).

    Parameters
    ----------
    array : Array
        To which the caller lends the one reference that its container had.
    copy : {None, True, False}
        Only where somebody else can reach the memory, always, never.

    Raises
    ------
    TypeError, ValueError
        As `Array.numpy`; and where `copy` is False but somebody else can reach the memory.
    """
    cdef Py_ssize_t offset
    cdef Header header = readable_header(array, &offset)
    # A weak reference can bring an Array back that its container has let go.
    cdef bint sole = (
        is_sole(<PyObject *> array) and is_sole(<PyObject *> array.payload) and getweakrefcount(array) == 0
    )
    cdef object owner
    if copy is not True and sole and surrender(array.payload):
        owner = array.payload.owner
        if owner is None or not is_array_of(owner, header):
            return ndarray_over(header, array.payload, offset, True)
        cnp.PyArray_ENABLEFLAGS(<ndarray> owner, cnp.NPY_ARRAY_WRITEABLE)
        return owner
    if copy is False:
        owner = array.payload.owner
        if array.payload.ownership == BORROWED and is_array_of(owner, header) and owner.flags.writeable:
            return owner
        reason = "the memory is immutable" if array.payload.ownership == SHARED else "the memory is still in use"
        raise ValueError(f"copy=False, but {reason} and has to be copied")
    if not sole or array.payload.ownership == BORROWED:
        return array.numpy(copy=True)
    move(array, header, offset)
    return ndarray_over(header, array.payload, 0, True)


cdef int move(Array array, Header header, Py_ssize_t offset) except -1:
    """Copy the elements of `array` to memory of its own, which is surrendered, and let the old go.

    What was received as one `bytes` takes no more than this one entry twice.
    """
    cdef Buffer copied = allocate(array.payload.nbytes - offset)
    copy_bytes(copied.pointer, array.payload.pointer + offset, copied.nbytes)
    if offset > 0:  # `header` has just been parsed, and is nobody else's yet
        header.preamble = array.payload.pointer[:offset]
        header.dtype = array.header.dtype  # in the words in which it was given
    surrender(copied)
    array.header, array.payload = header, copied
    return 0


cdef bint is_array_of(value, Header header) except -1:
    """Whether `value` is the plain ndarray that `header` was made for, and still what it was then."""
    if type(value) is not ndarray or value.shape != header.shape or value.dtype != header.descr:
        return False
    return cnp.PyArray_IS_F_CONTIGUOUS(value) if header.fortran_order else cnp.PyArray_IS_C_CONTIGUOUS(value)


cdef int take_back(Array array) noexcept:
    """Undo `give_up`; the ndarray that it gave is gone."""
    array.payload.surrendered = False
    return 0


cdef object original_of(Array array):
    """Undo `array_of_ndarray`: the ndarray itself where it was not copied, else one with its values."""
    cdef object owner = array.payload.owner
    if isinstance(owner, ndarray):
        return owner
    return give_up(array, None) if owner is None else array.numpy()


cdef int add_name(error, name) noexcept:
    """Make `error` name the key: in its message where that is ours to write, else in a note."""
    try:
        if type(error) in (MemoryError, TypeError, ValueError) and len(error.args) == 1:
            error.args = (f"key {name!r}: {error.args[0]}",)
        else:
            add_note(error, f"at key {name!r}")
    except Exception:
        pass  # the error itself matters more
    return 0


cdef int add_note(error, text) noexcept:
    try:
        error.add_note(text)
    except Exception:
        pass  # the error itself matters more
    return 0


cdef inline int check_signals(Py_ssize_t i) except -1:
    if i % SIGNALS_EVERY == 0:
        PyErr_CheckSignals()
    return 0
