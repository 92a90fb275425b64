"""Arrays become ndarrays or tensors."""

from .array cimport Array

cdef list release(list names, list arrays, copy, form)
cdef list show(list names, list arrays, copy, form)
cdef object original_of(Array array, form)
