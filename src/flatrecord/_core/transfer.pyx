"""Moving entries between a container and a record, all or nothing.

Entries leave their container from the last to the first. What has left is then always the end of the
container, so that after a failure it is enough to append it again: the order is the old one, in any
kind of mapping, without a deletion that might fail in its turn.
"""

from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject_DelItem, PyObject_GetItem

cimport numpy as cnp
from numpy cimport ndarray

from .array cimport Array, array_of_ndarray, check_ndarray, duplicate_array, give_up, is_immutable, original_of, refill

cnp.import_array()

cdef Py_ssize_t SIGNALS_EVERY = 256  # entries


cdef check_entry(name, value, copy):
    """Raise if this cannot become an entry of a record, naming the key."""
    if not isinstance(name, str):
        raise TypeError(f"a key must be str, got {type(name).__name__}: {name!r:.80}")
    if isinstance(value, Array):
        return
    if not isinstance(value, ndarray):
        raise TypeError(f"key {name!r}: a value must be an Array or a NumPy array, got {type(value).__name__}")
    try:
        check_ndarray(<ndarray> value, copy)
    except (TypeError, ValueError) as error:
        naming(error, f"key {name!r}")
        raise


cdef Array admit(value, copy, bint popped, bint *seen):
    """The Array that stands for `value` in a record; `seen` as in `admit_ndarray`."""
    seen[0] = False
    if not isinstance(value, Array):
        return array_of_ndarray(Array, <ndarray?> value, copy, popped, seen)
    # An Array is immutable, so that its new holder and all others may share it; duplicated is only
    # what the caller asks for, which keep_input=True does.
    seen[0] = True
    if copy is True or (copy is None and not popped and not is_immutable(<Array> value)):
        return duplicate_array(<Array> value)
    return <Array> value


cdef list absorb(source, list places, list names, bint keep_input, copy):
    """Turn the entries of a container into Arrays.

    Parameters
    ----------
    source : mapping or list
        Where the entries are. Without `keep_input` each leaves it before the next is handled.
    places : list
        Keys or indices of the entries in `source`, in its order.
    names : list of str
        Their keys in the record, for messages.
    keep_input : bool
        Leave `source` as it is.
    copy : {None, True, False}
        As for `Array`.

    Returns
    -------
    list of Array
        In the order of `places`.

    Raises
    ------
    Exception
        Whatever went wrong, naming the key; `source` then holds every entry, in the old order.
    """
    cdef Py_ssize_t i, count = len(places)
    cdef list arrays = [None] * count
    cdef list originals = [None] * count  # what was copied although somebody else holds it too
    cdef object value = None
    cdef bint seen
    for i in range(count):
        check_entry(names[i], PyObject_GetItem(source, places[i]), copy)
        check_signals(i)
    i = count
    try:
        while i > 0:
            i -= 1
            value = PyObject_GetItem(source, places[i])
            if not keep_input:
                PyObject_DelItem(source, places[i])
            arrays[i] = admit(value, copy, not keep_input, &seen)
            if seen and not keep_input:
                originals[i] = value
            value = None
            check_signals(i)
    except BaseException as error:
        naming(error, f"key {names[i]!r}")
        if not keep_input:
            put_back(source, places, i, value, originals, arrays, error)
        raise
    return arrays


cdef int put_back(
    source, list places, Py_ssize_t first, value, list originals, list arrays, error
) except -1:
    """Append to `source` the entries from `first` on, each in the form in which it left.

    An entry that `source` does not accept stays with the exception, in its attribute `not_put_back`.
    """
    cdef Py_ssize_t i
    cdef Array array
    cdef dict refused = {}
    for i in range(first, len(places)):
        if arrays[i] is None:
            if still_there(source, places[i]):
                continue
        elif originals[i] is not None:
            value = originals[i]
        else:
            array, arrays[i] = arrays[i], None
            value = original_of(array)
            array = None
        try:
            if isinstance(source, list):
                (<list> source).append(value)
            else:
                source[places[i]] = value
        except BaseException as again:
            refused[places[i]] = value
            error.add_note(f"and could not be put back: {places[i]!r} ({type(again).__name__}: {again})")
        value = None
    if refused:
        error.not_put_back = refused
    else:
        error.add_note("the input was put back as it was")
    return 0


cdef bint still_there(source, place) except -1:
    return place < len(source) if isinstance(source, list) else place in source


cdef list release(list names, list arrays, copy):
    """Turn Arrays into writable ndarrays, each giving up its memory where nobody else can reach it.

    Parameters
    ----------
    names : list of str
        Keys, for messages.
    arrays : list of Array
        Is emptied from its end: each Array leaves it before the next is handled.
    copy : {None, True, False}
        Only where somebody else can reach the memory, always, never.

    Returns
    -------
    list of ndarray
        In the order of `names`.

    Raises
    ------
    Exception
        Whatever went wrong, naming the key; `arrays` then holds every Array, in the old order.
    """
    cdef Py_ssize_t i = len(arrays), count = len(arrays)
    cdef list results = [None] * count
    cdef list shells = [None] * count  # the Arrays, without their memory where that was given up
    cdef Array array = None
    try:
        while i > 0:
            i -= 1
            array = arrays.pop()
            results[i] = give_up(array, copy)
            shells[i] = array
            array = None
            check_signals(i)
    except BaseException as error:
        if array is not None:
            arrays.append(array)
        for array in shells[i:]:
            if array is None:
                continue
            value, results[len(arrays)] = results[len(arrays)], None
            refill(array, value)
            arrays.append(array)
        naming(error, f"key {names[i]!r}")
        raise
    return results


cdef int naming(error, str text) except -1:
    """Make `error` say `text` as well: in its message where that is ours to write, else in a note."""
    if type(error) in (MemoryError, TypeError, ValueError) and len(error.args) == 1:
        error.args = (f"{text}: {error.args[0]}",)
    else:
        error.add_note(text)
    return 0


cdef inline int check_signals(Py_ssize_t i) except -1:
    if i % SIGNALS_EVERY == 0:
        PyErr_CheckSignals()
    return 0
