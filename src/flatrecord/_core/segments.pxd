"""Header and payload: cut into chunks, compared."""

from .buffer cimport Buffer

cdef bint equal(bytes left_head, Buffer left, bytes right_head, Buffer right) except -1
