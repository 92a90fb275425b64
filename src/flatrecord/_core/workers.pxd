"""Jobs that several threads do together, without the GIL."""

# One piece of a job. May run beside other pieces, and may be done once more.
ctypedef void (*Piece)(void *job, Py_ssize_t i) noexcept nogil

cdef int do_pieces(Piece piece, void *job, Py_ssize_t count) except -1
