"""The entries of a record, which several threads may read and change at a time: who takes them out, and how they come back."""

cimport cython

from .errors cimport add_note

cdef int RESTORE_TRIES = 100  # interrupted attempts to put entries back


cdef class Entries:
    """An ordered dict of Arrays, and what comes along with it: what a record keeps.

    Notes
    -----
    Thread safety, attribute by attribute: the dict of the entries has a lock of its own, and each method of a record
    does one operation on it, or as many as do not depend on one another. It is exchanged for another when the record is filled
    again or gets its entries back after a failure. So it is read in the record's critical section, with a reference of one's own
    (`entries_of`), and who has put something into it looks whether it still is the record's. `metadata` and `source` are read and
    replaced in the record's critical section.

    Where there is no GIL, one moment stays: as entries come back after a failure, what another thread takes out or replaces just
    then may be there again, or as before.
    """

    def __cinit__(self):
        self.entries = {}


cdef object metadata_of(Entries record):
    with cython.critical_section(record):
        return record.metadata


cdef int set_metadata(Entries record, metadata) except -1:
    with cython.critical_section(record):
        record.metadata = metadata
    return 0


cdef int check_keep_input(keep_input) except -1:
    # As strict as it can be: False empties the caller's dict.
    if keep_input is not True and keep_input is not False:
        raise TypeError(f"keep_input must be True or False, got {keep_input!r:.80}")
    return 0


def pass_out(Entries record not None, work, restore):
    """Take all entries out of a record for `work`, and put back what is left if it fails.

    Compiled, so that no second Ctrl-C comes between the failure and the record's being whole again.

    Parameters
    ----------
    record : Entries
        A record.
    work : callable
        Is called with a dict of the entries, in which it replaces each Array that it is done with by None.
    restore : callable
        Is called with that dict if `work` fails, to replace what it can of these.

    Returns
    -------
    object
        What `work` returns; the record is then empty.

    Raises
    ------
    BaseException
        Whatever `work` raises, or a signal's handler.
    """
    cdef dict entries = entries_of(record).copy()
    cdef list names = list(entries), arrays = list(entries.values())
    cdef int _try
    try:
        take_out(record, entries, names, arrays)
        arrays = None
        return work(entries)
    except BaseException as error:
        for _try in range(RESTORE_TRIES):
            try:
                restore(entries)
                break
            except KeyboardInterrupt:
                pass  # the first failure is raised in any case
            except Exception as other:
                add_note(error, f"some entries could not be put back: {other!r}")
                break
        for name in names:
            if entries[name] is None:
                del entries[name]
        put_first(record, entries, error)
        raise


cdef int take_out(Entries record, dict entries, list names, list arrays) except -1:
    """Remove from a record the entries that it had a moment ago.

    Those that another thread has removed or replaced meanwhile are not the caller's to take: they are removed from what he
    has, a dict with these names, and a list of these and one of their Arrays.
    """
    cdef dict present = entries_of(record)
    cdef Py_ssize_t i = 0
    if not FREE_THREADED and len(present) == len(names):
        for name, array in present.items():
            if name is not names[i] or array is not arrays[i]:
                break
            i += 1
        else:  # as it was; nobody else runs before it is empty
            array = None
            present.clear()
            return 0
    for i in range(len(names) - 1, -1, -1):
        if present.get(names[i]) is arrays[i]:
            found = present.pop(names[i], None)
            if found is arrays[i]:
                continue
            if found is not None:  # from another thread, between the two, where there is no GIL
                present.setdefault(names[i], found)
        del entries[names[i]], names[i], arrays[i]
    return 0


cdef int put_first(Entries record, dict entries, error) except -1:
    """Put entries before those that other threads have added meanwhile.

    Where there is no memory for both together, these are in the `not_put_back` of `error`, a list of pairs of key and value.
    """
    cdef dict present
    cdef list refused
    with cython.critical_section(record):
        present = record.entries
        if not present:
            try:
                present.update(entries)  # in place, so that views on the record stay live
                return 0
            except MemoryError:
                pass
        try:
            entries.update(present)
        except MemoryError:
            refused = []
            for name in entries:
                if name not in present:
                    refused.append((name, entries[name]))
            error.not_put_back = refused
            words = "there was no memory to put the entries back beside what was added meanwhile"
            add_note(error, f"{words}: see this exception's not_put_back")
            return 0
        # Whoever is about to write to `present` looks again afterwards (__setitem__).
        record.entries = entries
    return 0
