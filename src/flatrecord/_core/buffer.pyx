"""A run of bytes and its owner."""

cimport cython
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_SIMPLE, PyBUF_STRIDES, PyBUF_WRITABLE
from cpython.buffer cimport PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AsString, PyBytes_CheckExact, PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromObject
from libc.stdlib cimport free, malloc

from pickle import PickleBuffer

from .copying cimport copy_bytes

cdef extern from "platform.h":
    void *flatrecord_map(size_t size) noexcept nogil
    void flatrecord_unmap(void *block, size_t size) noexcept nogil

# A freed malloc block of 1 to 32 MiB often stays with the process (glibc raises its own mmap
# threshold up to that size), so blocks from here up come from mmap and go back at once.
cdef Py_ssize_t MAP_FROM = 1 << 20


@cython.no_gc_clear  # others in a dying cycle may still read the memory: only dealloc lets go of it
cdef class Buffer:
    """A run of bytes with one owner.

    Made by the core only. Exports its bytes read-only by the buffer protocol.

    Notes
    -----
    Thread safety: immutable once made, so it may be read from any thread. The exceptions are
    `surrendered`, which changes only while the caller holds the only reference, and `writers`, which is
    asked for only then.
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
            flatrecord_unmap(self.pointer, self.nbytes)
        else:
            free(self.pointer)

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
        self.writers += self.surrendered

    def __releasebuffer__(self, Py_buffer *view):
        self.writers -= not view.readonly

    def __deepcopy__(self, memo):
        return duplicate(self, 0)

    def __reduce_ex__(self, protocol):
        # A PickleBuffer costs nothing where the pickler takes buffers out of band, and is written
        # without a further copy where it does not. Protocols below 5 have no such thing.
        return _restore, (PickleBuffer(self) if protocol >= 5 else joined(b"", self),)


cdef Buffer allocate(Py_ssize_t nbytes):
    """Make a Buffer of `nbytes` uninitialised bytes of its own.

    Raises
    ------
    MemoryError
        If the system refuses; the message gives the size.
    """
    cdef Buffer buffer = Buffer.__new__(Buffer)
    cdef void *block
    if nbytes == 0:
        return buffer
    buffer.mapped = nbytes >= MAP_FROM
    block = flatrecord_map(nbytes) if buffer.mapped else malloc(nbytes)
    if block == NULL:
        raise MemoryError(f"cannot allocate {nbytes} bytes for an array")
    buffer.pointer = <char *> block
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


def _restore(data):
    """The Buffer that pickle kept `data` of, which was made or handed over for this purpose: no further copy."""
    return hold_exporter(data if PyBytes_CheckExact(data) else PyMemoryView_FromObject(data))


cdef Buffer duplicate(Buffer buffer, Py_ssize_t offset):
    """A Buffer with its own copy of the bytes from `offset` on."""
    cdef Buffer copied = allocate(buffer.nbytes - offset)
    copy_bytes(copied.pointer, buffer.pointer + offset, copied.nbytes)
    return copied


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
