"""Arrays made of parts that came from a file or a stream: a block of bytes, and what says how to read it.

For the modules that move records from place to place. The bytes may come from anybody; the caller has
checked what the parts say about one another, and it is checked here again where memory depends on it.
"""

from math import prod

cimport numpy as cnp
from numpy cimport ndarray

from .array cimport Array, checked_header, given_up, made_of, payload_of, readable_header
from .buffer cimport SHARED, Buffer, allocate, hold_exporter
from .npy cimport NUMPY_STYPE, Header, header_of_ndarray, parse_header, parse_preamble
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
    return given_up(allocate(nbytes, NULL))


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


def extent(start not None):
    """Where the payload of a serialized ndarray begins and how long it is, as its header says.

    Parameters
    ----------
    start : bytes or contiguous memoryview
        The beginning of the serialized array, with the whole header. May come from anybody.

    Returns
    -------
    tuple of int
        Offset and length, in bytes.

    Raises
    ------
    ValueError
        If this is not the beginning of a ``.npy`` array.
    """
    cdef Py_ssize_t offset, nbytes
    cdef Buffer found = hold_exporter(start)
    parse_preamble(found.pointer, found.nbytes, "", &offset, &nbytes)
    return offset, nbytes


def payload_offset(start not None, Py_ssize_t beyond, str dtype not None, tuple shape not None):
    """Where the payload of a serialized ndarray begins, in bytes.

    Parameters
    ----------
    start : bytes or contiguous memoryview
        The beginning of the serialized array, with the whole header. May come from anybody.
    beyond : int
        How many bytes follow after `start`.
    dtype, shape : str and tuple of int
        What came beside it.

    Raises
    ------
    ValueError
        If this is not the beginning of a ``.npy`` array of that dtype, that shape and that many bytes.
    """
    cdef Py_ssize_t offset
    cdef Buffer found = hold_exporter(start)
    cdef Header header = parse_header(found.pointer, found.nbytes, beyond, dtype, &offset)
    if header.dtype != dtype or header.shape != shape:
        raise ValueError(f"{header.dtype} of shape {header.shape} came as {dtype} of shape {shape}")
    return offset


def as_class(Array array not None, cls):
    """An Array of exactly the class `cls`, on the memory of `array`."""
    return array if type(array) is cls else made_of(cls, array.header, payload_of(array), array.listed)


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


def dtype_and_shape(Array array not None):
    """Dtype and shape of an Array, without making an ndarray of it; no dtype where it is none of NumPy's.

    Raises
    ------
    ValueError
        As `Array.numpy`.
    """
    cdef Py_ssize_t offset
    if array.header.descr is None and array.header.stype != NUMPY_STYPE:
        return None, array.header.shape
    cdef Header header = readable_header(array, &offset)
    return header.descr, header.shape


def row_major(Array array not None, descr):
    """A memoryview of an Array's elements, if they lie there in C order and are of the dtype `descr`; else None."""
    cdef Py_ssize_t offset
    cdef Header header = readable_header(array, &offset)
    if header.fortran_order or (header.descr is not descr and header.descr != descr):
        return None
    return memoryview(payload_of(array))[offset:]


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
