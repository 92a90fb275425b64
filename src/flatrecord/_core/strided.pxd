"""Copies of arrays that are not contiguous."""

cdef int copy_strided(
    char *target,
    const char *source,
    int ndim,
    const Py_ssize_t *shape,
    const Py_ssize_t *strides,
    Py_ssize_t itemsize,
) except -1
