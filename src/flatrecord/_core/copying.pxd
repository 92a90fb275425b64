"""Moving bytes: copies and comparison by all cores, without the GIL, that honour Ctrl-C."""

cdef enum:
    SMALL = 64 << 10  # below this many bytes, releasing the GIL costs more than it gives
    PIECE = 2 << 20  # bytes that one thread moves at a time: a huge page
    ALONE = 4 << 20  # below this many bytes, one thread is done before another has woken up

cdef int fill_pages(char *block, Py_ssize_t size) except -1
cdef int copy_bytes(char *target, const char *source, Py_ssize_t size) except -1
cdef bint bytes_equal(const char *left, const char *right, Py_ssize_t size) except -1
