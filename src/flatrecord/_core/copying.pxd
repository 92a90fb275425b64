"""Moving bytes: copies and comparison without the GIL that honour Ctrl-C."""

cdef int copy_bytes(char *target, const char *source, Py_ssize_t size) except -1
cdef int copy_strided(
    char *target,
    const char *source,
    int ndim,
    const Py_ssize_t *shape,
    const Py_ssize_t *strides,
    Py_ssize_t itemsize,
) except -1
cdef bint bytes_equal(const char *left, const char *right, Py_ssize_t size) except -1
