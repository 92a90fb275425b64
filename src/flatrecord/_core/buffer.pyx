"""A run of bytes and its owner."""

cimport cython
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_SIMPLE, PyBUF_STRIDES, PyBUF_WRITABLE
from cpython.buffer cimport PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AsString, PyBytes_CheckExact, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.memoryview cimport PyMemoryView_FromObject

from pickle import PickleBuffer

from . import environment

from .copying cimport copy_bytes

cdef extern from "Python.h":
    void PyObject_GC_UnTrack(object value)

cdef extern from "platform.h":
    const size_t PAGE "FLATRECORD_PAGE"

cdef extern from "blocks.h":
    void flatrecord_keep_up_to(size_t limit) noexcept nogil
    void *flatrecord_obtain(size_t needed, size_t *size) noexcept nogil
    void flatrecord_give_back(void *block, size_t size) noexcept nogil
    bint flatrecord_clear_shelf() noexcept nogil

# A freed malloc block of 1 to 32 MiB often stays with the process (glibc raises its own mmap
# threshold up to that size), however many there are, so blocks from here up come from mmap.
cdef Py_ssize_t MAP_FROM = 1 << 20
cdef size_t ALIGNMENT = 64  # of large blocks

flatrecord_keep_up_to(<size_t> environment.CACHE_MIB << 20)


@cython.no_gc_clear  # others in a dying cycle may still read the memory: only dealloc lets go of it
cdef class Buffer:
    """A run of bytes with one owner.

    Made by the core only. Exports its bytes read-only by the buffer protocol.

    Notes
    -----
    Thread safety: pointer, length, owner and `mapped` are written by the thread that makes the Buffer, before another can reach
    it. `ownership` changes once more, to SHARED, while its maker alone has it. `surrendered` changes only while
    the caller holds the only reference. Exports come and go in any thread, so `writers` is counted in the Buffer's critical
    section; it is asked for only while nobody else can make an export.
    """

    def __cinit__(self):
        self.pointer = <char *> b""
        self.ownership = SNAPSHOT

    def __init__(self):
        raise TypeError("a Buffer is made by the core, not by a caller")

    def __dealloc__(self):
        if self.owner is not None or self.nbytes == 0:
            return
        if self.mapped:
            flatrecord_give_back(<void *> (<size_t> self.pointer // PAGE * PAGE), self.mapped)
        else:
            PyMem_Free(self.pointer)

    def __len__(self):
        return self.nbytes

    def __getbuffer__(self, Py_buffer *view, int flags):
        if flags & PyBUF_WRITABLE and not self.surrendered:
            raise BufferError("a record's memory is read-only: take a copy, as with numpy(copy=True)")
        view.buf = self.pointer
        view.len = self.nbytes
        view.itemsize = 1
        view.readonly = not self.surrendered
        view.ndim = 1
        view.format = <char *> b"B" if flags & PyBUF_FORMAT else NULL
        view.shape = &self.nbytes if flags & PyBUF_ND else NULL
        view.strides = &view.itemsize if (flags & PyBUF_STRIDES) == PyBUF_STRIDES else NULL
        view.suboffsets = NULL
        view.internal = NULL
        view.obj = self
        with cython.critical_section(self):
            self.writers += not view.readonly

    def __releasebuffer__(self, Py_buffer *view):
        with cython.critical_section(self):
            self.writers -= not view.readonly

    def __deepcopy__(self, memo):
        return duplicate(self, 0)

    def __reduce_ex__(self, protocol):
        # A PickleBuffer costs nothing where the pickler takes buffers out of band, and is written
        # without a further copy where it does not. Protocols below 5 have no such thing.
        return _restore, (PickleBuffer(self) if protocol >= 5 else joined(b"", self),)


cdef Buffer allocate(Py_ssize_t nbytes, const char *source):
    """Make a Buffer of `nbytes` uninitialised bytes of its own.

    Parameters
    ----------
    nbytes : int
    source : pointer, or NULL
        What will be copied into it, all at once. A large block begins as far into a page as this does, or up to 63 bytes
        further, so that it is aligned in any case. Otherwise the processor mistakes loads for loads of what
        it has just stored, and the copy takes up to half as long again.

    Raises
    ------
    MemoryError
        If the system refuses; the message gives the size.
    """
    cdef Buffer buffer = Buffer.__new__(Buffer)
    cdef size_t shift = 0
    cdef char *block
    PyObject_GC_UnTrack(buffer)  # it will never lead to another object
    if nbytes == 0:
        return buffer
    if nbytes < MAP_FROM:
        block = <char *> PyMem_Malloc(nbytes)
    else:
        shift = (<size_t> source + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT % PAGE
        block = <char *> flatrecord_obtain(nbytes + shift, &buffer.mapped)
    if block == NULL:
        raise MemoryError(f"cannot allocate {nbytes} bytes for an array")
    buffer.pointer = block + shift
    buffer.nbytes = nbytes
    return buffer


cdef Buffer hold(owner, char *pointer, Py_ssize_t nbytes, Ownership ownership):
    """A Buffer on memory that `owner` keeps where it is."""
    cdef Buffer buffer = Buffer.__new__(Buffer)
    buffer.owner = owner
    buffer.pointer = pointer
    buffer.nbytes = nbytes
    buffer.ownership = ownership
    return buffer


cdef Buffer hold_exporter(exporter):
    """A Buffer on the memory of `bytes`, or of a contiguous memoryview, which keeps it where it is."""
    cdef Py_buffer view
    # The exporter outlives this second, short export.
    PyObject_GetBuffer(exporter, &view, PyBUF_SIMPLE)
    cdef char *pointer = <char *> view.buf
    cdef Py_ssize_t nbytes = view.len
    PyBuffer_Release(&view)
    return hold(exporter, pointer, nbytes, SHARED if PyBytes_CheckExact(exporter) else BORROWED)


def empty_cache():
    """Give the system what is kept of freed memory: at most ``FLATRECORD_CACHE_MIB``, which is 32 if it is not set."""
    flatrecord_clear_shelf()


def _restore(data):
    """The Buffer that pickle kept `data` of, which was made or handed over for this purpose: no further copy."""
    return hold_exporter(data if PyBytes_CheckExact(data) else PyMemoryView_FromObject(data))


cdef Buffer snapshot(const char *source, Py_ssize_t nbytes):
    """A Buffer with a copy of some bytes."""
    cdef Buffer copied = allocate(nbytes, source)
    copy_bytes(copied.pointer, source, nbytes)
    return copied


cdef Buffer duplicate(Buffer buffer, Py_ssize_t offset):
    """A Buffer with its own copy of the bytes from `offset` on."""
    return snapshot(buffer.pointer + offset, buffer.nbytes - offset)


cdef bytes joined(bytes head, Buffer payload):
    """One `bytes` of both; the copy can be interrupted."""
    cdef Py_ssize_t size = len(head)
    cdef bytes whole
    cdef char *target
    try:
        whole = PyBytes_FromStringAndSize(NULL, size + payload.nbytes)
    except MemoryError:
        raise MemoryError(f"cannot allocate {size + payload.nbytes} bytes for data") from None
    target = PyBytes_AsString(whole)
    copy_bytes(target, <const char *> head, size)
    copy_bytes(target + size, payload.pointer, payload.nbytes)
    return whole
