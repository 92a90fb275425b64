"""Entries of a container become Arrays, all or nothing.

Entries leave their container from the last to the first. What has left is then always the end of the
container, so that after a failure it is enough to append it again: the order is the old one, in any
kind of mapping, without a deletion that might fail in its turn.

An entry whose memory somebody else was seen to hold is put off until all have left, because that somebody
may be another entry (tied weights). Holding it meanwhile costs nothing, as the memory lives on anyway.

Undoing a failure allocates as little as it can: whatever needs memory, a hash or a caller's code is done
before the first entry leaves.
"""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject, PyObject_DelItem, PyObject_GetItem
from cpython.ref cimport Py_INCREF

from weakref import getweakrefcount

cimport numpy as cnp
from numpy cimport ndarray

from .array cimport Array, checked_header, extent_of, give_memory, is_immutable, is_shell, made_of, ownership_of
from .array cimport payload_of, recast, shell_of
from .buffer cimport BORROWED, SNAPSHOT, TAKEN, Buffer, duplicate
from .entries cimport FREE_THREADED
from .errors cimport add_name, add_note, type_name
from .foreign cimport Memory, adapter_of
from .holders cimport IMMUTABLE, SEEN, SOLE, Holder, Trail, account, follow, has_references, is_lone, is_sole, item, key_of
from .npy cimport Header, is_header_of
from .ownership cimport admit_group, admit_ndarray, copies, is_contiguous, is_mapping
from .release cimport original_of

cdef extern from "Python.h":
    # With plain pointers, which nobody has to hand back.
    void PyObject_GC_UnTrack(object value)
    bint PyDict_Next(object dictionary, Py_ssize_t *position, PyObject **key, PyObject **value)
    PyObject *PyList_GetItem(object values, Py_ssize_t i) except NULL
    int PyList_SetItem(object values, Py_ssize_t i, PyObject *value) except -1  # takes over the reference to `value`

cnp.import_array()

cdef enum:
    SIGNALS_EVERY = 256  # entries


cdef int absorb(source, list places, list names, dict staged, bint keep_input, copy, type array_class) except -1:
    """Turn the entries of a container into Arrays.

    Parameters
    ----------
    source : mapping or list
        Where the entries are. Without `keep_input` each leaves it before the next is handled.
    places : list
        Keys or indices of the entries in `source`, in its order.
    names : list of str
        A name for each place. Plain `str`, so that setting their values in a dict that has them cannot fail.
    staged : dict
        Empty; the names become its keys, in the same order, and the Arrays its values.
    keep_input : bool
        Leave `source` as it is.
    copy : {None, True, False}
        As for `Array`.
    array_class : type
        Array or a subclass, of which the Arrays will be.

    Raises
    ------
    ValueError
        If two names are the same; `source` is then as it was.
    Exception
        Whatever went wrong, naming the key; `source` then holds every entry, in the old order.
    """
    cdef Intake intake = Intake.__new__(Intake)
    cdef Py_ssize_t i = len(places)
    cdef object value = None
    cdef bint left = True, out = False
    intake.names, intake.staged, intake.keep_input, intake.copy, intake.array_class = names, staged, keep_input, copy, array_class
    intake.arrays, intake.originals, intake.adapters = nones(i), None, {}
    intake.shared, intake.duplicates = {}, []
    # What these give out is the one reference that they have, and not an object made for the purpose.
    intake.references = 1 + keep_input if type(source) is dict or type(source) is list else 0
    intake.check(source, places)
    try:
        out = intake.move_out(source, places)
        while i > 0:
            i -= 1
            intake.at, left = i, False
            if out:
                value = item_of(intake.originals, i)
                put(intake.originals, i, None)
            elif type(source) is dict and not keep_input:
                value = (<dict> source).pop(item_of(places, i))  # at once, so that no other thread has it as well
            else:
                value = PyObject_GetItem(source, item_of(places, i))
                if not keep_input:
                    PyObject_DelItem(source, item_of(places, i))
            left = True
            intake.admit(value)
            value = None
            check_signals(i)
        for members in intake.shared.values():
            if len(members) == 1:
                intake.admit_held(members[0])
            else:
                members.reverse()
                intake.admit_together(members)
            PyErr_CheckSignals()
        intake.duplicate_arrays()
    except BaseException as error:
        if keep_input:
            add_note(error, "the input is as it was")
        else:
            # A deletion that raised may have done its work all the same.
            left = left or (value is not None and not is_there(source, item_of(places, i)))
            if left and value is not None:
                put(intake.originals, i, value)
            value = None
            intake.put_back(source, places, 0 if out else i if left else i + 1, error)
        add_name(error, intake.names[intake.at])
        raise
    return 0


cdef class Intake:
    """The entries on their way from a container to a record. One thread makes it, uses it and drops it; nobody else has it."""

    cdef list names
    cdef dict staged  # name -> what stands in `arrays`
    cdef list arrays  # by place: the Array; one that is still empty; None where there is none yet
    cdef Py_ssize_t references  # to an entry that has just been got out and that nobody else has; 0 where that is not known
    cdef bint keep_input
    cdef object copy
    cdef type array_class
    cdef Py_ssize_t at  # the place that is being handled, for messages
    cdef list originals  # by place: what goes back as it is, because its turn has not come or it costs nothing to keep
    cdef dict adapters  # place -> who can make a value that was copied and let go again; not of ndarrays
    cdef dict shared  # what values that share memory have in common -> their places
    cdef list duplicates  # the places of Arrays that are to be copied

    cdef int check(self, source, list places) except -1:
        """Raise if a value cannot become an entry, naming the key, and make empty Arrays for those of ndarrays."""
        cdef bint at_once
        cdef Py_ssize_t i
        self.originals = values_of(source, places)
        at_once = self.originals is not None
        if not at_once:
            self.originals = nones(len(places))
        try:
            for self.at in range(len(places)):
                value = item_of(self.originals, self.at) if at_once else PyObject_GetItem(source, item_of(places, self.at))
                put(self.arrays, self.at, self.checked(value))
                check_signals(self.at)
        except Exception as error:
            add_name(error, self.names[self.at])
            raise
        for i in range(len(places)):
            self.staged[item_of(self.names, i)] = item_of(self.arrays, i)
        if len(self.staged) != len(places):
            raise ValueError("two keys of the input are the same text")
        return 0

    cdef bint move_out(self, source, list places) except -1:
        """Let all values of a dict leave it, if they are still those that were checked, and say whether they have.

        To delete them one by one takes longer than all the rest. Each is let go of before the next is handled in any case.
        Where there is no GIL they leave one by one all the same: two threads could find and clear the dict at once (a critical
        section that CPython 3.13 enters once more, as `clear` does, is left for a moment), and both would have them all.
        """
        cdef PyObject *key
        cdef PyObject *value
        cdef Py_ssize_t position = 0, i = 0
        if type(source) is not dict:
            return False
        while not FREE_THREADED and PyDict_Next(source, &position, &key, &value):
            if i == len(places) or key != PyList_GetItem(places, i) or value != PyList_GetItem(self.originals, i):
                i = -1
                break
            i += 1
        if not FREE_THREADED and i == len(places):
            if not self.keep_input:
                source.clear()
            return True
        self.originals = nones(len(places))
        return False

    cdef Array checked(self, value):
        if isinstance(value, ndarray):
            return shell_of(self.array_class, header_to_be(<ndarray> value, self.copy))
        if not isinstance(value, Array):
            adapter_for(value).check(value, self.copy)
        return None

    cdef int enter(self, Py_ssize_t i, Array array) except -1:
        put(self.arrays, i, array)
        self.staged[item_of(self.names, i)] = array
        return 0

    cdef int admit(self, value) except -1:
        """Make an Array of the value at the place in hand, to which the caller lends its one reference."""
        cdef Trail trail
        cdef Holder holder
        cdef object memory = None, adapter, array
        cdef object payload
        if isinstance(value, Array):
            return self.admit_array(<Array> value)
        adapter = adapter_for(value)
        if adapter is None and is_lone(<PyObject *> value, self.references):
            holder, trail.root, trail.nbytes = SOLE, <PyObject *> value, cnp.PyArray_NBYTES(value)
        elif adapter is None:
            holder = follow(<PyObject *> value, 0, None, &trail)
        else:
            memory = adapter.memory_of(value)
            sole = is_sole(<PyObject *> value) and getweakrefcount(value) == 0
            tenants = adapter.tenants((value,))
            holder = follow(<PyObject *> memory, -1 if tenants is None else tenants[0], None, &trail)
            if not sole or tenants is None:
                holder = max(holder, SEEN)
        # Immutable memory that is to be copied may be that of other entries, too.
        if (holder == SEEN and self.copy is not False) or (holder == IMMUTABLE and self.copy is True):
            self.originals[self.at] = value
            self.shared.setdefault(key_of(&trail), []).append(self.at)
            return 0
        if adapter is None:
            payload = admit_ndarray(value, self.copy, not self.keep_input, holder, &trail)
            return self.stage(value, None, value, payload, holder == IMMUTABLE or is_mapping(&trail))
        array = adapter.expose(value, memory)
        if adapter.converts(value):
            return self.stage(value, adapter, array, admit_converted(array), (<Memory> memory).elsewhere)
        payload = admit_ndarray(array, self.copy, not self.keep_input, holder, &trail)
        if ownership_of(payload) == BORROWED:
            memory.stay()
        return self.stage(value, adapter, array, payload, holder == IMMUTABLE or ownership_of(payload) == TAKEN)

    cdef int admit_array(self, Array value) except -1:
        # Immutable, so that its new holder and all others may share it; duplicated is only what the caller
        # asks for, which keep_input=True does.
        cdef Array array
        if self.copy is True or (self.copy is None and self.keep_input and not is_immutable(value)):
            if self.keep_input or not (is_sole(<PyObject *> value) and stands_alone(value)):
                self.originals[self.at] = value
                self.duplicates.append(self.at)
                return 0
            array = made_of(type(value), value.header, duplicate(payload_of(value), 0), value.listed)
        else:
            array = value
        # An equal copy goes back after a failure, so that no entry is there twice.
        self.originals[self.at] = array
        return self.enter(self.at, recast(array, self.array_class))

    cdef int duplicate_arrays(self) except -1:
        """Copy the Arrays that are to be copied, all at once, because some may be tied."""
        cdef list pointers = [], sizes = []
        cdef Py_ssize_t j = 0
        cdef char *pointer
        cdef Array array
        if not self.duplicates:
            return 0
        self.duplicates.reverse()
        for i in self.duplicates:
            array = self.originals[i]
            sizes.append(extent_of(array, &pointer))
            pointers.append(<size_t> pointer)
        try:
            buffers = copies(pointers, sizes, &j)
        except BaseException:
            self.at = self.duplicates[j]
            raise
        for i, buffer in zip(self.duplicates, buffers):
            array = self.originals[i]
            cls = type(array) if isinstance(array, self.array_class) else self.array_class
            self.enter(i, made_of(cls, array.header, buffer, array.listed))
        return 0

    cdef int stage(self, value, adapter, ndarray array, payload, bint lives_on) except -1:
        """Enter the Array of the place in hand: the elements of `array` in `payload`, which `admit_ndarray` made of it.

        The value itself is kept for the case of a failure if its memory lives on, so that it costs nothing.
        """
        lives_on = lives_on or ownership_of(payload) == BORROWED
        self.prepare(self.at, None if lives_on else adapter, array)
        self.fill(self.at, payload, value if lives_on else None)
        return 0

    cdef int prepare(self, Py_ssize_t i, adapter, ndarray array) except -1:
        """Have an Array at place `i` that is still empty, with the header of `array`. To fill it needs no memory then."""
        cdef Array empty = item_of(self.arrays, i)
        if empty is None:
            self.enter(i, shell_of(self.array_class, checked_header(array)))
        elif not is_header_of(empty.header, array):
            # It was looked at before others were handled, which may have taken long.
            empty.header = checked_header(array)
        if adapter is not None:
            self.adapters[i] = adapter
        return 0

    cdef int fill(self, Py_ssize_t i, payload, original) except -1:
        """Give its memory to the Array that was prepared for place `i`."""
        cdef Array empty = item_of(self.arrays, i)
        give_memory(empty, empty.header, payload)
        put(self.originals, i, original)
        return 0

    cdef int admit_held(self, Py_ssize_t i) except -1:
        """Make an Array of a value whose memory no other entry shares, so that it is somebody else's."""
        cdef Trail trail
        cdef object value = self.originals[i], array, memory
        cdef object adapter = adapter_for(value)
        self.at = i
        if adapter is None:
            return self.stage(value, None, value, admit_ndarray(value, True, False, SEEN, &trail), True)
        memory = adapter.memory_of(value)
        array = adapter.expose(value, memory)
        if adapter.converts(value):
            # A conjugate view has more references to its base than it needs: nobody else may have one.
            return self.stage(value, adapter, array, admit_converted(array), (<Memory> memory).elsewhere)
        return self.stage(value, adapter, array, admit_ndarray(array, True, False, SEEN, &trail), True)

    cdef int admit_together(self, list members) except -1:
        """Make Arrays of values that share memory, with each other or with somebody else.

        Parameters
        ----------
        members : list of int
            The places, whose values are all in `originals`.
        """
        cdef dict counts = {}  # id of a value -> number of its names
        cdef dict places = {}  # id of a value -> its place in the lists below
        cdef dict converted = {}  # what values with the same elements have in common -> ndarray and Buffer
        cdef list values = [], adapters = [], memories, arrays = [], payloads = []
        cdef list shown = [], exposed = []  # places of those that are shown as they are, and the ndarrays
        cdef list given = [], kept = []  # of each member: its memory, and what goes back
        cdef Py_ssize_t i, j, failed = 0
        cdef Trail trail
        cdef Holder holder
        self.at = members[0]
        for i in members:
            value = self.originals[i]
            counts[id(value)] = counts.get(id(value), 0) + 1
            if counts[id(value)] == 1:
                places[id(value)] = len(values)
                values.append(value)
                adapters.append(adapter_for(value))
        value = None
        memories = memories_of(values, adapters)
        holder = holder_of(values, adapters, memories, counts, &trail)
        for j in range(len(values)):
            value, adapter = values[j], adapters[j]
            if adapter is None:
                array, payload = value, None
            elif not adapter.converts(value):
                array, payload = adapter.expose(value, memories[j]), None
            else:
                alike = adapter.identity(value)
                if alike not in converted:
                    array = adapter.expose(value, memories[j])
                    converted[alike] = array, admit_converted(array)
                array, payload = converted[alike]
            if payload is None:
                shown.append(j)
                exposed.append(array)
            arrays.append(array)
            payloads.append(payload)
        try:
            buffers = admit_group(exposed, self.copy is None and not self.keep_input, holder, &trail, &failed)
        except BaseException:
            for i in members:
                if shown and places[id(self.originals[i])] == shown[failed]:
                    self.at = i
                    break
            raise
        for j, payload in zip(shown, buffers):
            payloads[j] = payload
        # All at once: of some that are entered already and some that are not, the former would come back as copies, and
        # would share no memory with the latter.
        for i in members:
            self.at = i
            value = self.originals[i]
            j = places[id(value)]
            if adapters[j] is not None and adapters[j].converts(value):
                lives_on = (<Memory> memories[j]).elsewhere
            else:
                lives_on = holder == SEEN or holder == IMMUTABLE or ownership_of(payloads[j]) == TAKEN
            lives_on = lives_on or ownership_of(payloads[j]) == BORROWED
            self.prepare(i, None if lives_on else adapters[j], arrays[j])
            given.append(payloads[j])
            kept.append(value if lives_on else None)
        for j in range(len(members)):
            self.fill(item_of(members, j), item_of(given, j), item_of(kept, j))
        return 0

    cdef int put_back(self, source, list places, Py_ssize_t first, error) except -1:
        """Append the entries from `first` on to `source`, each in the form in which it left.

        What `source` does not accept is left in the error, and what is an equal copy by now is named there.
        """
        cdef list refused = []  # (place, value): a hostile key cannot be hashed
        cdef list rebuilt = []
        cdef Py_ssize_t i
        cdef object value, array, adapter
        for i in range(first, len(places)):
            array = item_of(self.arrays, i)
            self.enter(i, None)
            value = item_of(self.originals, i)
            if value is None and array is not None and not is_shell(array):
                try:
                    adapter = self.adapters.get(i) if self.adapters else None
                    if ownership_of((<Array> array).memory) == SNAPSHOT or adapter is not None:
                        rebuilt.append(item_of(self.names, i))
                    value = original_of(<Array> array, None if adapter is None else adapter.Form())
                except MemoryError:
                    value = array
            array = None
            # A second Ctrl-C can interrupt a container that runs Python code: try twice.
            if not (accepts(source, item_of(places, i), value) or accepts(source, item_of(places, i), value)):
                refused.append((item_of(places, i), value))
        report(error, refused, rebuilt)
        return 0


cdef list nones(Py_ssize_t count):
    """A list of so many None, at which the garbage collector does not look."""
    cdef list values = [None] * count
    PyObject_GC_UnTrack(values)
    return values


cdef list values_of(source, list places):
    """The values of a plain dict in the order of `places`, its keys; None for any other container, and if the keys have changed."""
    cdef PyObject *key
    cdef PyObject *value
    cdef Py_ssize_t position = 0, i = 0
    cdef list values
    if type(source) is not dict:
        return None
    values = nones(len(places))
    with cython.critical_section(source):
        while PyDict_Next(source, &position, &key, &value):
            if i == len(places) or key != PyList_GetItem(places, i):
                return None
            put(values, i, <object> value)
            i += 1
    return values if i == len(places) else None


# Cython goes by way of a Python int where the API is limited, for which there may be no memory.
cdef inline object item_of(list values, Py_ssize_t i):
    return <object> PyList_GetItem(values, i)


cdef inline int put(list values, Py_ssize_t i, value) except -1:
    Py_INCREF(value)
    PyList_SetItem(values, i, <PyObject *> value)
    return 0


cdef Header header_to_be(ndarray value, copy):
    """The header of `value` as an entry, or whatever error it would raise but for want of memory."""
    cdef Header header = checked_header(value)
    if copy is False and not is_contiguous(value):
        raise ValueError("copy=False, but the array is not contiguous and has to be copied")
    return header


cdef object adapter_for(value):
    """Who knows a value; None for an ndarray.

    Raises
    ------
    TypeError
        If nobody does.
    """
    if isinstance(value, ndarray):
        return None
    adapter = adapter_of(value)
    if adapter is None:
        raise TypeError(f"a value must be an Array, a NumPy array or a torch tensor, got {type_name(value)}")
    return adapter


cdef bint stands_alone(Array array):
    """Whether surely no other Array shows the memory of `array`."""
    if type(array.memory) is not Buffer:
        return is_lone(<PyObject *> array.memory, 1)
    if not is_sole(<PyObject *> array.memory):
        return False
    return (<Buffer> array.memory).owner is None or is_lone(<PyObject *> (<Buffer> array.memory).owner, 1)


cdef object admit_converted(ndarray array):
    """What `admit_ndarray` makes of an ndarray whose memory was made for it, and which nobody else has."""
    cdef Trail trail
    cdef Holder holder = follow(<PyObject *> array, 0, None, &trail)
    return admit_ndarray(array, None, True, holder, &trail)


cdef list memories_of(list values, list adapters):
    """The `Memory` of each value that has an adapter, one for each block."""
    cdef dict known = {}
    cdef list memories = [None] * len(values)
    cdef Py_ssize_t j
    for j in range(len(values)):
        if adapters[j] is not None:
            memory = adapters[j].memory_of(values[j])
            memories[j] = known.setdefault((<Memory?> memory).key, memory)
    return memories


cdef Holder holder_of(list values, list adapters, list memories, dict counts, Trail *trail) except *:
    """Who holds the memory that some values share.

    Parameters
    ----------
    values : list
        The only reference to each, but for those in the intake's `originals`.
    counts : dict
        id of a value -> how often it is in `originals`.
    """
    cdef Holder holder = SOLE
    cdef dict accounted = {}
    cdef dict tenants = {}  # id of a Memory -> places of the values for which it stands
    cdef Py_ssize_t j, known
    cdef PyObject *value
    for j in range(len(values)):
        if memories[j] is not None:
            tenants.setdefault(id(memories[j]), []).append(j)
            continue
        value = item(values, j)
        account(value, accounted)
        accounted[<size_t> value] += counts[<size_t> value]
    for found in tenants.values():
        account(item(memories, found[0]), accounted)
        accounted[id(memories[found[0]])] += len(found) - 1  # in `memories`
    for j in range(len(values)):
        if memories[j] is None:
            holder = max(holder, follow(item(values, j), 0, accounted, trail))
    for found in tenants.values():
        counted = adapters[found[0]].tenants(list(map(values.__getitem__, found)))
        j = found[0]
        holder = max(holder, follow(item(memories, j), -1 if counted is None else counted[0], accounted, trail))
        for j, beneath in zip(found, () if counted is None else counted[1]):
            value = item(values, j)
            known = counts[<size_t> value] + 1 + beneath
            if not has_references(value, known) or getweakrefcount(<object> value) > 0:
                holder = max(holder, SEEN)
    return holder


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


cdef inline int check_signals(Py_ssize_t i) except -1:
    if i % SIGNALS_EVERY == 0:
        PyErr_CheckSignals()
    return 0
