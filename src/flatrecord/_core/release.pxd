"""Arrays become ndarrays or tensors."""

from .array cimport Array
from .entries cimport Entries

cdef object come_out(Entries record, keep_input, copy, form)
cdef object original_of(Array array, form)
