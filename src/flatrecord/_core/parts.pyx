"""Arrays made of parts that came from a file or a stream: a block of bytes, and what says how to read it.

For the modules that move records from place to place. The bytes may come from anybody; the caller has
checked what the parts say about one another, and it is checked here again where memory depends on it.
"""

from math import prod

cimport numpy as cnp
from numpy cimport ndarray

from .array cimport Array, checked_header, given_up, made_of
from .buffer cimport SHARED, Buffer, allocate, hold_exporter
from .npy cimport Header, header_of_ndarray
from .views cimport ndarray_over

cnp.import_array()

cdef enum:
    MAX_DIMS = 64  # NumPy 2's own limit


def blank(Py_ssize_t nbytes):
    """A Buffer of `nbytes` uninitialised bytes, which may be written to until it is sealed.

    Raises
    ------
    MemoryError
        If the system refuses; the message gives the size.
    """
    return given_up(allocate(nbytes))


def seal(Buffer block not None):
    """Make a blank Buffer read-only, once it is filled.

    Raises
    ------
    BufferError
        If somebody still has a view that writes to it.
    """
    if block.writers != 0:
        raise BufferError("whoever filled an array's memory has kept a view on it, and could write to it later")
    block.surrendered = False


def share(view not None):
    """A Buffer on a memoryview of a mapping that nobody else has, and to which nobody writes therefore."""
    cdef Buffer block = hold_exporter(view)
    block.ownership = SHARED
    return block


def header_of(ndarray value not None):
    """The `Header` of an ndarray: its ``.npy`` preamble, and the order of its axes.

    Raises
    ------
    TypeError
        If a masked array would lose its mask.
    ValueError
        If the dtype needs pickle.
    """
    return checked_header(value)


def array_of_block(Buffer block not None, descr, tuple shape not None):
    """An Array of the elements of `block`, in C order.

    Parameters
    ----------
    block : Buffer
    descr : numpy.dtype
    shape : tuple of int

    Raises
    ------
    ValueError
        If the block is not as long as dtype and shape ask for.
    """
    cdef Header header = Header.__new__(Header)
    cdef object needed = prod(shape, start=descr.itemsize)
    if len(shape) > MAX_DIMS:
        raise ValueError(f"a shape has {len(shape)} axes, more than {MAX_DIMS}")
    if needed != block.nbytes:
        raise ValueError(f"{descr} of shape {shape} needs {needed} bytes, found {block.nbytes}")
    header.descr, header.shape = descr, shape
    return made_of(Array, header_of_ndarray(ndarray_over(header, block, 0, False)), block, False)
