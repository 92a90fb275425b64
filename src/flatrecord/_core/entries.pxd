"""The entries of a record, which several threads may read and change at a time: who takes them out, and how they come back."""

cimport cython

cdef extern from "platform.h":
    const bint FREE_THREADED "FLATRECORD_FREE_THREADED"


cdef class Entries:
    cdef dict entries  # str -> Array, in order; only ever changed through the record's class
    cdef object metadata  # `_metadata` of the state_dict that was put in, a copy of our own; or None
    cdef object source  # what `verify` asks: where the arrays were loaded from; or None


cdef inline dict entries_of(Entries record):
    """The entries. A reference of one's own, because where there is no GIL another thread may exchange them at any moment."""
    with cython.critical_section(record):
        return record.entries


cdef inline dict at_one_moment(Entries record):
    """The entries, for what lets no other thread run before it is done with them; a copy where others run all the time."""
    return entries_of(record).copy() if FREE_THREADED else entries_of(record)


cdef int check_keep_input(keep_input) except -1
cdef object metadata_of(Entries record)
cdef int set_metadata(Entries record, metadata) except -1
cdef int take_out(Entries record, dict entries, list names, list arrays) except -1
cdef int put_first(Entries record, dict entries, error) except -1
