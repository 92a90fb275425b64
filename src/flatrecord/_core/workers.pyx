"""Jobs that several threads do together, without the GIL.

A job is cut into pieces, of at most a few milliseconds each. The thread that has the job takes pieces, and so do
those of a pool (`workers.h`). That thread alone handles signals: every 25 ms it takes the GIL for it, while the
others go on. An interrupt waits for the pieces under way and never for the job.
"""

import os

from . import environment

cdef extern from "workers.h":
    ctypedef struct flatrecord_work:
        Piece piece
        void *job
        Py_ssize_t count, next
        int helpers

    bint flatrecord_has_pieces(const flatrecord_work *work) noexcept nogil
    void flatrecord_watch_forks() noexcept nogil
    void flatrecord_share(flatrecord_work *work) noexcept
    int flatrecord_slice(flatrecord_work *work, int milliseconds) except -1
    bint flatrecord_settle(flatrecord_work *work) noexcept nogil

flatrecord_watch_forks()

cdef enum:
    SLICE = 25  # milliseconds without looking for signals; of time, because taking the GIL back can cost 5 ms


def cores():
    """How many threads work on one job.

    Returns
    -------
    int
        What ``FLATRECORD_THREADS`` said when flatrecord was imported; else how many cores this process may use now.
    """
    if environment.THREADS is not None:
        return environment.THREADS
    # os.process_cpu_count is new in Python 3.13; sched_getaffinity, on which it stands, is not on every system.
    if hasattr(os, "process_cpu_count"):
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


cdef int do_pieces(Piece piece, void *job, Py_ssize_t count) except -1:
    """Do pieces 0 to `count` - 1 of a job, by as many threads as there are cores.

    Raises
    ------
    KeyboardInterrupt, or whatever else a signal's handler raises
        Some pieces are then not done; no thread is at any.
    """
    cdef flatrecord_work work
    cdef bint again = True
    work.piece, work.job, work.count = piece, job, count
    work.helpers = 0 if count < 2 else min(<Py_ssize_t> cores(), count) - 1
    # A signal's handler may fork. The child lacks the threads that were at some of the pieces, and does all again.
    while again:
        work.next = 0
        try:
            flatrecord_share(&work)
            while flatrecord_has_pieces(&work):
                flatrecord_slice(&work, SLICE)
        finally:
            with nogil:
                again = flatrecord_settle(&work)
    return 0
