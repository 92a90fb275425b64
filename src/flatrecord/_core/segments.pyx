"""Header and payload: cut into chunks, compared."""

from .buffer cimport Buffer
from .copying cimport bytes_equal


def cut(segments, Py_ssize_t size):
    """The pieces of `Array.chunks`."""
    cdef Py_ssize_t start, room = size
    for segment in segments:
        start = 0
        while start < len(segment):
            piece = segment[start : start + room]
            yield piece
            start += len(piece)
            room -= len(piece)
            if room == 0:
                room = size


cdef bint equal(bytes left_head, Buffer left, bytes right_head, Buffer right) except -1:
    """Whether two serialized arrays are the same bytes, wherever their segments meet."""
    if len(left_head) + left.nbytes != len(right_head) + right.nbytes:
        return False
    if left_head == right_head:
        return bytes_equal(left.pointer, right.pointer, left.nbytes)
    if left_head and right_head:
        return False
    if left_head:
        left, right, right_head = right, left, left_head
    # `left` is in one piece, `right` in two.
    cdef Py_ssize_t head = len(right_head)
    return bytes_equal(left.pointer, <const char *> right_head, head) and bytes_equal(
        left.pointer + head, right.pointer, right.nbytes
    )
