"""Array: a header and a payload."""

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE
from cpython.bytes cimport PyBytes_CheckExact
from cpython.object cimport PyObject
from libc.errno cimport EAGAIN

import sys
from copy import deepcopy
from operator import index

import numpy as np

from .foreign import adapter
from .segments import cut

cimport numpy as cnp

from .buffer cimport BORROWED, SHARED, TAKEN, Buffer, Ownership, allocate, duplicate, joined
from .foreign cimport adapter_of
from .holders cimport SEEN, Holder, Trail, follow
from .npy cimport NUMPY_STYPE, Header, header_of_fields, header_of_ndarray, parse_header
from .ownership cimport admit_exporter, admit_ndarray, buffer_on
from .segments cimport equal
from .views cimport ndarray_over, view_over

cdef extern from "Python.h":
    str PyUnicode_FromObject(object text)
    bint PyObject_GC_IsTracked(object value)
    void PyObject_GC_Track(object value)
    void PyObject_GC_UnTrack(object value)

cdef extern from *:
    """
    /* Hand out a view that `exporter` fills in, in place of the None that Cython has put there. */
    static int flatrecord_reexport(PyObject *exporter, Py_buffer *view, int flags)
    {
        Py_CLEAR(view->obj);
        return PyObject_GetBuffer(exporter, view, flags);
    }
    """
    int flatrecord_reexport(object exporter, Py_buffer *view, int flags) except -1

cnp.import_array()

cdef Py_ssize_t REPR_BYTES = 8
cdef Header NO_HEADER = header_of_fields("", (), "")
cdef Buffer NO_PAYLOAD = allocate(0, NULL)
cdef tuple OWNERSHIP = ("taken", "snapshot", "borrowed", "shared")


@cython.no_gc_clear
cdef class Array:
    """Array(dtype=None, shape=None, stype=None, data=None, *, ndarray=None, copy=None)\n--\n
    An array in serialized form: what Flower calls ``Array``, without the copies.

    Made from an ndarray or a torch tensor, ``Array(ndarray)``, or from its four fields,
    ``Array(dtype, shape, stype, data)``.

    Parameters
    ----------
    dtype : str, numpy.ndarray or torch.Tensor
        Name of the dtype, as in ``str(ndarray.dtype)``. Or an ndarray or tensor, and nothing else.
    shape : sequence of int
        Sizes of the axes, in elements. Reads back as a list if a list was given, else as a tuple.
    stype : str
        Name of the serialization; ``"numpy.ndarray"`` is the ``.npy`` format.
    data : bytes-like
        The serialized array; C-contiguous.
    ndarray : numpy.ndarray, keyword only
        The same as an ndarray in the first place.
    copy : {None, True, False}, keyword only
        Whether the memory is copied: only when needed (the default), always, never. Memory to
        which the caller may still write needs a copy; `bytes` cannot change and need none. Nor do
        read-only mappings: whoever changes the file below one changes the Array. With False the
        Array shows whatever is later written to the memory.

    Raises
    ------
    TypeError
        If a field is missing or has the wrong type, a masked array would lose its mask, or a tensor
        is not dense (sparse, quantized, nested, meta) or of a dtype that NumPy has not.
    ValueError
        If the dtype needs pickle, a size is negative, or `copy` is False and the memory is not
        contiguous.
    MemoryError
        If a copy is needed and there is no room for it.

    Notes
    -----
    The serialized form is a header and a payload, two runs of bytes that are kept apart; only
    `data` joins them.

    Arrays are equal if their dtype, shape (list or tuple), stype and data are, byte for byte: a NaN
    equals the same NaN. ``numpy.asarray``, DLPack and the buffer protocol give read-only views, but
    torch writes to what it gets by DLPack all the same. Pickle protocol 5 hands the payload out of
    band, `copy.copy` gives the same Array, and `copy.deepcopy` a snapshot.

    Thread safety: immutable, so it may be read from any thread without a lock. Borrowed memory is as
    safe as what the caller does to it.

    Attribute by attribute: header, memory and `listed` are written before another thread can reach the Array, and once more when a
    record that holds the only reference empties it. The first who asks for a view puts a Buffer around
    a taken ndarray, in the Array's critical section; who reads `memory` at that moment finds the one or the other, and both live as long as
    the Array does.
    """

    def __cinit__(self):
        self.header = NO_HEADER
        self.memory = NO_PAYLOAD

    def __init__(self, dtype=None, shape=None, stype=None, data=None, *, ndarray=None, copy=None):
        if self.header is not NO_HEADER:
            raise TypeError("an Array is immutable: make a new one")
        check_copy(copy)
        if ndarray is None and (isinstance(dtype, cnp.ndarray) or adapter_of(dtype) is not None):
            dtype, ndarray = None, dtype
        elif ndarray is not None and not isinstance(ndarray, cnp.ndarray):
            raise TypeError(f"ndarray must be a NumPy array, got {type(ndarray).__name__}")
        if ndarray is not None:
            if not (dtype is None and shape is None and stype is None and data is None):
                raise TypeError("Array takes an ndarray or the four fields dtype, shape, stype and data, not both")
            fill_from(self, ndarray, copy)
            return
        for name, value in (("dtype", dtype), ("stype", stype)):
            if not isinstance(value, str):
                raise TypeError(
                    f"Array takes an ndarray, a torch tensor, or dtype, shape, stype and data: {name} must be str, "
                    f"got {type(value).__name__}"
                )
        if data is None:
            raise TypeError("Array takes an ndarray, a torch tensor, or dtype, shape, stype and data: data is missing")
        self.memory = admit_exporter(data, copy)
        self.header = header_of_fields(exact_str(dtype), checked_shape(shape), exact_str(stype))
        self.listed = isinstance(shape, list)
        rest(self)

    @classmethod
    @cython.binding(True)  # the limited API has no classmethod for plain method descriptors
    def from_numpy_ndarray(cls, ndarray, *, copy=None):
        """Make an Array from an ndarray, as ``Array(ndarray)`` does.

        Parameters
        ----------
        ndarray : numpy.ndarray
            Any dtype that needs no pickle, of any shape, order and strides.
        copy : {None, True, False}
            As for `Array`.

        Returns
        -------
        Array
            With `shape` as a tuple.
        """
        return cls(ndarray=ndarray, copy=copy)

    @classmethod
    @cython.binding(True)  # the limited API has no classmethod for plain method descriptors
    def from_torch_tensor(cls, tensor, *, copy=None):
        """Make an Array from a torch tensor, as ``Array(tensor)`` does.

        Parameters
        ----------
        tensor : torch.Tensor
            Dense, of any device, shape and strides.
        copy : {None, True, False}
            As for `Array`.

        Returns
        -------
        Array
            With `shape` as a tuple, and in `dtype` the name that NumPy and ml_dtypes have for it.
        """
        if adapter_of(tensor) is not adapter("torch"):
            raise TypeError(f"tensor must be a torch.Tensor, got {type(tensor).__name__}")
        return cls(tensor, copy=copy)

    @property
    def dtype(self):
        """str: name of the dtype, such as ``float32`` or ``bfloat16``."""
        return self.header.dtype

    @property
    def shape(self):
        """list or tuple of int: sizes of the axes, in elements; of the type that was given."""
        return list(self.header.shape) if self.listed else self.header.shape

    @property
    def stype(self):
        """str: name of the serialization; ``numpy.ndarray`` for the ``.npy`` format."""
        return self.header.stype

    @property
    def data(self):
        """bytes: the whole serialized array.

        For a NumPy array what ``numpy.save(..., allow_pickle=False)`` writes. The object that was
        given, if that was `bytes`; else made anew each time, which costs a copy of the array.
        """
        cdef Buffer payload = payload_of(self)
        if not self.header.preamble and PyBytes_CheckExact(payload.owner) and len(payload.owner) == payload.nbytes:
            return payload.owner
        return joined(self.header.preamble, payload)

    @property
    def nbytes(self):
        """int: length of `data` in bytes, without making it."""
        return serialized_length(self)

    @property
    def ownership(self):
        """str: how the memory came to be held.

        ``taken`` from its sole holder without a copy, a ``snapshot`` of memory that somebody else
        could write to, ``borrowed`` by ``copy=False``, or ``shared`` because it is immutable.
        """
        return OWNERSHIP[<int> ownership_of(memory_of(self))]

    def segments(self):
        """The two parts of the serialized form.

        Returns
        -------
        tuple of memoryview
            Header and payload, read-only, one-dimensional, of bytes. No copy. The header is empty
            where `data` was given and holds its own.
        """
        return memoryview(self.header.preamble), memoryview(payload_of(self))

    def chunks(self, size=5242880):
        """Iterate over the serialized form without joining it.

        Parameters
        ----------
        size : int
            Largest length of a piece, in bytes; at least 1. Flower cuts its messages at the default,
            5 MiB.

        Yields
        ------
        memoryview
            Read-only pieces, in order, that together are `data`. They are cut at each multiple of
            `size` and between header and payload, so the first two together are no longer than
            `size`.

        Raises
        ------
        ValueError
            If `size` is less than 1.
        """
        try:
            size = index(size)
        except TypeError:
            raise TypeError(f"size must be an integer, got {type(size).__name__}") from None
        if size < 1:
            raise ValueError(f"size must be at least 1 byte, got {size}")
        return cut(self.segments(), size)

    def write_to(self, file):
        """Write the serialized form to a file, without joining it.

        Parameters
        ----------
        file : object with a ``write`` method
            Binary and open for writing; buffered or raw.

        Returns
        -------
        int
            Number of bytes written.

        Raises
        ------
        BlockingIOError
            If the file is non-blocking and not ready. `characters_written` is the number of bytes
            that were written.
        OSError
            If the file writes nothing, or says that it wrote more than there was.
        """
        cdef Py_ssize_t done = 0
        if not hasattr(file, "write"):
            raise TypeError(f"file must have a write method, got {type(file).__name__}")
        for piece in self.chunks(16 << 20):
            while len(piece):
                count = file.write(piece)
                if count is None:
                    raise BlockingIOError(EAGAIN, "the file is not ready for writing", done)
                if not 0 < count <= len(piece):
                    raise OSError(f"the file's write() returned {count} for {len(piece)} bytes")
                done += count
                piece = piece[count:]
        return done

    def numpy(self, copy=None):
        """The array as an ndarray.

        Parameters
        ----------
        copy : {None, False, True}
            None and False give a read-only view on this Array's memory, True an independent and
            writable array.

        Returns
        -------
        numpy.ndarray
            Of the dtype, shape and order that was put in; ml_dtypes included.

        Raises
        ------
        TypeError
            If `stype` is not ``numpy.ndarray``.
        ValueError
            If `data` is not a ``.npy`` array, would need pickle, or does not agree with `dtype` and
            `shape`.
        """
        check_copy(copy)
        cdef Py_ssize_t offset
        cdef Header header = readable_header(self, &offset)
        if copy is not True:
            return view_over(None, header, payload_of(self), offset, False)
        return view_over(None, header, given_up(duplicate(payload_of(self), offset)), 0, True)

    def torch(self, copy=None):
        """The array as a torch tensor.

        Parameters
        ----------
        copy : {None, False, True}
            None and False give a tensor on this Array's memory, True an independent one. The former
            is to be read and copied from only: see `ParametersRecord.to_torch_state_dict`.

        Returns
        -------
        torch.Tensor
            On the CPU, of the dtype, shape and order that was put in.

        Raises
        ------
        ModuleNotFoundError
            If torch is not installed.
        TypeError
            If torch has no such dtype; and as `numpy`.
        ValueError
            As `numpy`.
        """
        check_copy(copy)
        cdef Py_ssize_t offset
        cdef Header header = readable_header(self, &offset)
        cdef object form = adapter("torch").Form()
        form.check(header.descr)
        if copy is not True:
            return view_over(form, header, payload_of(self), offset, False)
        return view_over(form, header, given_up(duplicate(payload_of(self), offset)), 0, True)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.numpy(False), dtype=dtype, copy=copy)

    def __dlpack__(self, **kwargs):
        return self.numpy(False).__dlpack__(**kwargs)

    def __dlpack_device__(self):
        return self.numpy(False).__dlpack_device__()

    def __getbuffer__(self, Py_buffer *view, int flags):
        cdef object exporter
        cdef bint faithful
        if flags & PyBUF_WRITABLE:
            raise BufferError("an Array's memory is read-only: take a copy, as with numpy(copy=True)")
        try:
            exporter = self.numpy(False)
            faithful = np.asarray(memoryview(exporter)).dtype == exporter.dtype
        except (TypeError, ValueError, RuntimeError) as error:  # of the last, NumPy makes what it cannot read back
            raise BufferError(f"{error}; segments() gives the bytes") from None
        # NumPy asks for a buffer before it asks for __array__, and would take the wrong dtype for right.
        if not faithful:
            raise BufferError(f"the buffer protocol has no code for dtype {self.dtype}; segments() gives the bytes")
        flatrecord_reexport(exporter, view, flags)

    def __eq__(self, other):
        if not isinstance(other, Array):
            return NotImplemented
        return self is other or same(self, <Array> other)

    __hash__ = None  # as Flower's dataclass: equality goes by content

    def __repr__(self):
        cdef Py_ssize_t size = self.nbytes
        cdef bytes start = bytes(self.segments()[0][:REPR_BYTES])
        start += bytes(self.segments()[1][: REPR_BYTES - len(start)])
        return (
            f"{type(self).__name__}(dtype={self.dtype!r}, shape={self.shape!r}, stype={self.stype!r}, "
            f"data={start!r}{'...' if size > len(start) else ''})"
        )

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        other = made_of(type(self), self.header, deepcopy(payload_of(self), memo), self.listed)
        if hasattr(self, "__dict__"):  # of a subclass
            other.__dict__.update(deepcopy(self.__dict__, memo))
        return other

    def __reduce_ex__(self, protocol):
        header = self.header
        # A Buffer, which pickle writes once, under however many names it is.
        fields = type(self), header.dtype, header.shape, self.listed, header.stype, header.preamble, payload_of(self)
        return _rebuild, fields, getattr(self, "__dict__", None)  # of a subclass


def array_from_numpy(ndarray, *, copy=None):
    """Make an Array from an ndarray, with `shape` as a list.

    Parameters
    ----------
    ndarray : numpy.ndarray
        Any dtype that needs no pickle, of any shape, order and strides.
    copy : {None, True, False}
        As for `Array`.

    Returns
    -------
    Array
    """
    cdef Array array = Array(ndarray=ndarray, copy=copy)
    array.listed = True
    return array


def _rebuild(cls, dtype, shape, listed, stype, preamble, payload):
    """Make an Array from what pickle or a file kept of it.

    Raises
    ------
    TypeError, ValueError
        If these are not the parts of one Array.
    """
    cdef Py_ssize_t offset
    cdef bint agrees
    cdef Header header, known
    cdef Buffer buffer = <Buffer?> payload
    cdef bytes start = bytes(preamble)
    dtype = exact_str(dtype)
    if not (isinstance(cls, type) and issubclass(cls, Array)):
        raise TypeError(f"not a class of Arrays: {cls!r:.80}")
    if not start:
        return made_of(cls, header_of_fields(dtype, checked_shape(shape), exact_str(stype)), buffer, listed)
    header = parse_header(start, len(start), buffer.nbytes, dtype, &offset)
    agrees = offset == len(start) and header.shape == checked_shape(shape) and stype == header.stype
    if not agrees or (header.dtype != dtype and is_other_dtype(dtype, header.descr)):
        raise ValueError("the header that was kept of an Array does not agree with its fields")
    known = header_of_ndarray(ndarray_over(header, buffer, 0, False))
    # Another release of NumPy may have written the same header in other words.
    if known.preamble == start:
        header = known
    else:
        header.preamble = start
    return made_of(cls, header, buffer, listed)


cdef str exact_str(text):
    """`text` as a plain `str`, whatever subclass it is of."""
    return PyUnicode_FromObject(text)


cdef int check_copy(copy) except -1:
    if copy is not None and copy is not True and copy is not False:
        raise TypeError(f"copy must be None, True or False, got {copy!r:.80}")
    return 0


cdef tuple checked_shape(shape):
    cdef tuple sizes
    try:
        sizes = tuple(map(index, shape))
    except TypeError:
        raise TypeError(f"shape must be a sequence of integers, got {shape!r:.80}") from None
    for size in sizes:
        if size < 0:
            raise ValueError(f"shape has a negative size: {shape!r:.80}")
    return sizes


cdef Header checked_header(cnp.ndarray value):
    """The header of `value`, or the error that says why it has none."""
    # NumPy loads numpy.ma on demand; where it is not loaded there are no masked arrays.
    if type(value) is not cnp.ndarray and "numpy.ma" in sys.modules and isinstance(value, np.ma.MaskedArray):
        raise TypeError("a masked array would lose its mask: pass array.filled() or array.data")
    return header_of_ndarray(value)


cdef Buffer payload_of(Array array):
    """The Buffer of an Array's memory. From now on it is that which has the ndarray."""
    with cython.critical_section(array):
        if type(array.memory) is not Buffer:
            array.memory = buffer_on(<ndarray?> array.memory)
        return <Buffer> array.memory


cdef object memory_of(Array array):
    """The memory of an Array that others may have too, in whose place one of them may put a Buffer at this moment."""
    with cython.critical_section(array):
        return array.memory


cdef Ownership ownership_of(memory) noexcept:
    return (<Buffer> memory).ownership if type(memory) is Buffer else TAKEN


cdef Py_ssize_t extent_of(Array array, char **pointer) noexcept:
    """Where the payload begins, and its length in bytes."""
    cdef object memory = memory_of(array)
    if type(memory) is Buffer:
        pointer[0] = (<Buffer> memory).pointer
        return (<Buffer> memory).nbytes
    pointer[0] = cnp.PyArray_BYTES(<cnp.ndarray> memory)
    return cnp.PyArray_NBYTES(<cnp.ndarray> memory)


cdef Py_ssize_t serialized_length(Array array) except -1:
    """What `Array.nbytes` says."""
    cdef char *pointer
    return len(array.header.preamble) + extent_of(array, &pointer)


cdef Array made_of(type cls, Header header, memory, bint listed):
    """An Array of the class `cls`, with a Buffer, or an ndarray that `admit_ndarray` took, for its memory."""
    cdef Array array = Array.__new__(Array) if cls is Array else cls.__new__(cls)
    if array.header is not NO_HEADER:
        raise TypeError(f"{cls.__name__}.__new__ returned an Array that is in use")
    array.listed = listed
    give_memory(array, header, memory)
    return array


cdef Array shell_of(type cls, Header header):
    """An Array whose memory is still to come, by `give_memory`."""
    return made_of(cls, header, NO_PAYLOAD, False)


cdef bint is_shell(Array array):
    return array.memory is NO_PAYLOAD


cdef int give_memory(Array array, Header header, memory) except -1:
    array.header, array.memory = header, memory
    rest(array)
    return 0


cdef inline void rest(Array array) noexcept:
    """Let the garbage collector pass an Array by if its memory leads to nothing that could lead back to it."""
    if type(array) is not Array:
        return
    if not PyObject_GC_IsTracked(array.memory):
        PyObject_GC_UnTrack(array)
    elif not PyObject_GC_IsTracked(array):
        PyObject_GC_Track(array)


cdef Array recast(Array array, cls):
    """`array` as an instance of `cls`, on the same memory; itself if it is one."""
    return array if isinstance(array, cls) else made_of(cls, array.header, payload_of(array), array.listed)


cdef int fill_from(Array array, value, copy) except -1:
    """Make `array` that of an ndarray, or of a value that an adapter knows, which the caller keeps."""
    cdef Trail trail
    cdef Holder holder
    cdef cnp.ndarray shown
    cdef bint converted = False
    cdef object theirs = None if isinstance(value, cnp.ndarray) else adapter_of(value), memory = None
    if theirs is None:
        shown = value
    else:
        theirs.check(value, copy)
        converted = theirs.converts(value)
        memory = theirs.memory_of(value)
        shown = theirs.expose(value, memory)
    cdef Header header = checked_header(shown)
    if not converted and cnp.PyArray_BASE(shown) == NULL:
        holder, trail.root = SEEN, <PyObject *> shown  # by the caller; no need to ask whether it is immutable
    else:
        holder = follow(<PyObject *> shown, 0, None, &trail)
    # What had to be converted is a copy already, that nobody else has.
    give_memory(array, header, admit_ndarray(shown, None if converted else copy, converted, holder, &trail))
    if memory is not None and ownership_of(array.memory) == BORROWED:
        memory.stay()
    return 0


cdef bint is_immutable(Array array):
    """Whether nobody at all can write to the memory of `array`."""
    return ownership_of(memory_of(array)) == SHARED


cdef Header readable_header(Array array, Py_ssize_t *offset):
    """The header that says how to read the payload from `offset` on."""
    cdef Header header = array.header
    offset[0] = 0
    if header.descr is not None:
        return header
    if header.stype != NUMPY_STYPE:
        raise TypeError(f"stype {header.stype!r} cannot be read as a NumPy array, only {NUMPY_STYPE!r} can")
    cdef Buffer payload = payload_of(array)
    header = parse_header(payload.pointer, payload.nbytes, 0, array.header.dtype, offset)
    if not array.header.dtype and not array.header.shape:
        return header  # it does not say: so those that Flower's compatibility layer makes
    if header.shape != array.header.shape:
        raise ValueError(f"shape is {array.header.shape}, but the data's header says {header.shape}")
    if header.dtype != array.header.dtype and is_other_dtype(array.header.dtype, header.descr):
        raise ValueError(f"dtype is {array.header.dtype!r}, but the data's header says {header.dtype!r}")
    return header


cdef bint is_other_dtype(str name, descr) except -1:
    """Whether `name` is that of a dtype which is not `descr`; a name that NumPy does not know is not."""
    try:
        return np.dtype(name) != descr
    except (TypeError, ValueError, SyntaxError):
        return False


cdef Buffer given_up(Buffer copied):
    """A fresh Buffer, given up to whoever gets a view on it."""
    copied.surrendered = True
    return copied


cdef int let_go(Array array) noexcept:
    """Empty `array` if it has surrendered its memory, or has given its ndarray away, so that whoever still reaches it finds nothing."""
    if type(array.memory) is not Buffer or (<Buffer> array.memory).surrendered:
        array.header, array.memory = NO_HEADER, NO_PAYLOAD
    return 0


cdef bint same(Array left, Array right) except -1:
    """Whether all four fields agree."""
    if left.dtype != right.dtype or left.stype != right.stype or left.header.shape != right.header.shape:
        return False
    return equal(left.header.preamble, payload_of(left), right.header.preamble, payload_of(right))
