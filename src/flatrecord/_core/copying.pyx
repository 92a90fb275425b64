"""Moving bytes: copies and comparison by all cores, without the GIL, that honour Ctrl-C.

A block is moved in pieces of one huge page, each by one thread, which is the first to touch it. So the page is
cleared by the kernel and written to while it is in that core's cache: that is up to twice as fast
as one memcpy for each thread's share, and as filling the pages in before (`python -m profiling speed`).
"""

from libc.string cimport memcmp, memcpy

from .workers cimport do_pieces

cdef extern from "platform.h":
    bint flatrecord_has_huge_pages() noexcept nogil
    void flatrecord_populate(void *block, size_t size) noexcept nogil

cdef bint FILL_PAGES = not flatrecord_has_huge_pages()

cdef struct Run:
    # Two runs of bytes of the same length. Pieces begin where huge pages of the first one do.
    char *target
    const char *source
    Py_ssize_t size
    Py_ssize_t first  # length of the first piece
    bint differ


cdef Py_ssize_t start_of(Run *run, Py_ssize_t i) noexcept nogil:
    return 0 if i == 0 else min(run.first + (i - 1) * <Py_ssize_t> PIECE, run.size)


cdef Py_ssize_t cut(Run *run, const char *target, const char *source, Py_ssize_t size) noexcept nogil:
    """Fill in a Run and say how many pieces it has."""
    run.target, run.source, run.size, run.differ = <char *> target, source, size, False
    run.first = size if size < ALONE else PIECE - <Py_ssize_t> (<size_t> target % PIECE)
    return 1 + (size - run.first + PIECE - 1) // PIECE


cdef void copy_piece(void *job, Py_ssize_t i) noexcept nogil:
    cdef Run *run = <Run *> job
    cdef Py_ssize_t start = start_of(run, i), size = start_of(run, i + 1) - start
    if FILL_PAGES:
        flatrecord_populate(run.target + start, size)
    memcpy(run.target + start, run.source + start, size)


cdef int copy_bytes(char *target, const char *source, Py_ssize_t size) except -1:
    """Copy `size` bytes between two blocks that do not overlap."""
    cdef Run run
    if size <= SMALL:
        memcpy(target, source, size)
    else:
        do_pieces(copy_piece, &run, cut(&run, target, source, size))
    return 0


cdef void fill_piece(void *job, Py_ssize_t i) noexcept nogil:
    cdef Run *run = <Run *> job
    flatrecord_populate(run.target + start_of(run, i), start_of(run, i + 1) - start_of(run, i))


cdef int fill_pages(char *block, Py_ssize_t size) except -1:
    """Give a block that is about to be written to its pages, where that is faster than one fault for each."""
    cdef Run run
    if FILL_PAGES and size > SMALL:
        do_pieces(fill_piece, &run, cut(&run, block, NULL, size))
    return 0


cdef void compare_piece(void *job, Py_ssize_t i) noexcept nogil:
    cdef Run *run = <Run *> job
    cdef Py_ssize_t start = start_of(run, i)
    if not run.differ and memcmp(run.target + start, run.source + start, start_of(run, i + 1) - start) != 0:
        run.differ = True


cdef bint bytes_equal(const char *left, const char *right, Py_ssize_t size) except -1:
    """Whether two blocks of `size` bytes hold the same bytes."""
    cdef Run run
    if left == right:
        return True
    if size <= SMALL:
        return memcmp(left, right, size) == 0
    do_pieces(compare_piece, &run, cut(&run, left, right, size))
    return not run.differ
