"""Memory and its owner: take, snapshot, borrow, allocate.

For each payload one question is answered here and nowhere else: who owns the bytes afterwards?

=========  =====================================================================================
take       not copied; the Buffer becomes the only holder
snapshot   copied once into memory of our own
borrow     not copied; the memory stays shared with somebody who may write to it
share      not copied; the memory is immutable, so it does not matter who else holds it
=========  =====================================================================================
"""

cimport cython
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_SIMPLE, PyBUF_STRIDES, PyBUF_WRITABLE
from cpython.buffer cimport PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_CheckExact
from cpython.memoryview cimport PyMemoryView_FromObject
from cpython.object cimport PyObject
from libc.stdlib cimport free, malloc

cimport numpy as cnp
from numpy cimport ndarray

from gc import get_referents
from mmap import mmap as _mmap
from weakref import getweakrefcount

from .copying cimport copy_bytes, copy_strided

cdef extern from "platform.h":
    void *flatrecord_map(size_t size) noexcept nogil
    void flatrecord_unmap(void *block, size_t size) noexcept nogil
    bint flatrecord_is_sole_reference(PyObject *object)

cdef extern from *:
    """
    #define flatrecord_has_weak_references(array) (((PyArrayObject_fields *)(array))->weakreflist != NULL)
    """
    bint flatrecord_has_weak_references(ndarray array)

cnp.import_array()

# A freed malloc block of 1 to 32 MiB often stays with the process (glibc raises its own mmap
# threshold up to that size), so blocks from here up come from mmap and go back at once.
cdef Py_ssize_t MAP_FROM = 1 << 20

# The exact types, compared by identity: a subclass may add holders or change meanings.
cdef object NDARRAY = ndarray
cdef object MMAP = _mmap
cdef object MEMORYVIEW = memoryview
cdef object BYTEARRAY = bytearray


@cython.no_gc_clear  # others in a dying cycle may still read the memory: only dealloc lets go of it
cdef class Buffer:
    """A run of bytes with one owner.

    Made by the core only. Exports its bytes read-only by the buffer protocol.

    Notes
    -----
    Thread safety: immutable once made, so it may be read from any thread. The one exception is
    `surrendered`, which changes only while the caller holds the only reference.
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


cdef bint is_contiguous(ndarray array):
    return cnp.PyArray_IS_C_CONTIGUOUS(array) or cnp.PyArray_IS_F_CONTIGUOUS(array)


cdef Buffer hold(owner, char *pointer, Py_ssize_t nbytes, Ownership ownership):
    cdef Buffer buffer = Buffer.__new__(Buffer)
    buffer.owner = owner
    buffer.pointer = pointer
    buffer.nbytes = nbytes
    buffer.ownership = ownership
    return buffer


cdef bint is_sole(PyObject *value):
    """Whether there is only one reference to `value`; a raw pointer, so as not to add another."""
    return flatrecord_is_sole_reference(value)


cdef object immutable_owner(object value):
    """`value` in a form that keeps its memory in place, where that memory is immutable; else None.

    Immutable are exact `bytes`, mappings opened read-only, and what a Buffer shares of these. A
    mapping comes back as a memoryview, which keeps anyone from closing it.
    """
    cdef object view, exporter
    if PyBytes_CheckExact(value):
        return value
    if type(value) is MMAP:
        view = PyMemoryView_FromObject(value)
        return view if view.readonly else None
    if type(value) is Buffer and (<Buffer> value).ownership == SHARED:
        return (<Buffer> value).owner
    if type(value) is MEMORYVIEW:
        try:
            exporter = value.obj
        except ValueError:  # it was released
            return None
        return None if type(exporter) is MEMORYVIEW else immutable_owner(exporter)
    return None


cdef PyObject *exporter_of_view(PyObject *view, bint *seen) except? NULL:
    """The object whose memory a memoryview shows; NULL where its other users cannot be counted.

    Views on the same memory share a managed buffer, which has the one reference to the exporter. It
    is no attribute of the view, but what the garbage collector visits below it.
    """
    cdef PyObject *link = view
    cdef list referents
    for kind in ("managedbuffer", None):
        referents = get_referents(<object> link)
        if len(referents) != 1 or (kind is not None and type(referents[0]).__name__ != kind):
            return NULL
        link = <PyObject *> referents[0]
        referents = None  # which held a reference of its own
        if kind is not None and not is_sole(link):
            seen[0] = True
    return link


cdef Holder holder_of_ndarray(PyObject *array, PyObject **root, Py_ssize_t *root_nbytes):
    """Who holds the memory of the ndarray `array`, to which the caller lends the one reference it has.

    Walks from `array` along ``.base`` to the object that owns the memory, which becomes `root`; the
    size of its memory becomes `root_nbytes` where that is known. A weak reference counts as a
    holder, because it can become a strong one.
    """
    # Raw pointers, because an `object` would add the very reference that is being counted.
    cdef PyObject *link = array
    cdef bint seen = False, known = True, writable = False
    root_nbytes[0] = 0
    while True:
        root[0] = link
        if isinstance(<object> link, ndarray):
            # A subclass (np.memmap, np.ma) may keep the memory in further attributes.
            known = known and type(<object> link) is NDARRAY
            known = known and not cnp.PyArray_CHKFLAGS(<ndarray> link, cnp.NPY_ARRAY_WRITEBACKIFCOPY)
            seen = seen or flatrecord_has_weak_references(<ndarray> link)
            seen = seen or not is_sole(link)
            writable = writable or cnp.PyArray_CHKFLAGS(<ndarray> link, cnp.NPY_ARRAY_WRITEABLE)
            if cnp.PyArray_BASE(<ndarray> link) == NULL:
                known = known and cnp.PyArray_CHKFLAGS(<ndarray> link, cnp.NPY_ARRAY_OWNDATA)
                root_nbytes[0] = cnp.PyArray_NBYTES(<ndarray> link)
                break
            link = cnp.PyArray_BASE(<ndarray> link)
        elif not writable and immutable_owner(<object> link) is not None:
            return IMMUTABLE
        elif type(<object> link) is MEMORYVIEW:
            seen = seen or not is_sole(link) or getweakrefcount(<object> link) > 0
            link = exporter_of_view(link, &seen)
            if link == NULL:
                known = False
                break
        elif type(<object> link) is BYTEARRAY or PyBytes_CheckExact(<object> link):
            # Unpickled ndarrays write to the `bytes` that pickle made for them and nobody else holds.
            seen = seen or not is_sole(link)
            root_nbytes[0] = len(<object> link)
            break
        elif type(<object> link) is Buffer:
            seen = seen or not is_sole(link)
            if (<Buffer> link).owner is None:
                root_nbytes[0] = (<Buffer> link).nbytes
                break
            link = <PyObject *> (<Buffer> link).owner
        else:
            known = False
            break
    if seen:
        return SEEN
    return SOLE if known else UNKNOWN


cdef Buffer snapshot_ndarray(ndarray array):
    """Copy the elements of `array` into memory of our own, in the order in which `.npy` wants them."""
    cdef Buffer buffer = allocate(cnp.PyArray_NBYTES(array))
    cdef const char *source = cnp.PyArray_BYTES(array)
    if is_contiguous(array):
        copy_bytes(buffer.pointer, source, buffer.nbytes)
    else:
        copy_strided(
            buffer.pointer,
            source,
            cnp.PyArray_NDIM(array),
            <Py_ssize_t *> cnp.PyArray_DIMS(array),
            <Py_ssize_t *> cnp.PyArray_STRIDES(array),
            cnp.PyArray_ITEMSIZE(array),
        )
    return buffer


cdef Buffer admit_ndarray(ndarray array, copy, bint popped, bint *lives_on):
    """Decide between take, snapshot, borrow and share for the memory of an ndarray.

    Parameters
    ----------
    copy : None, True or False
        Only when needed, always, never: as in NumPy 2.
    popped : bool
        The caller has removed `array` from its container and holds the one reference that the
        container had.
    lives_on : pointer, filled in
        Whether the memory of `array` stays in use when the caller lets go of it, because somebody
        else was seen to hold it, because it is shared, or because it is a mapped file.

    Raises
    ------
    ValueError
        If `copy` is False and the array is not contiguous.
    MemoryError
        If a snapshot is needed and there is no room for it.
    """
    cdef Py_ssize_t root_nbytes
    cdef PyObject *root
    cdef Holder holder = holder_of_ndarray(<PyObject *> array, &root, &root_nbytes)
    cdef bint mapping = root != NULL and type(<object> root) is MMAP
    cdef char *pointer = cnp.PyArray_BYTES(array)
    cdef Py_ssize_t nbytes = cnp.PyArray_NBYTES(array)
    lives_on[0] = holder == SEEN or holder == IMMUTABLE or mapping
    if is_contiguous(array):
        if copy is not True and holder == IMMUTABLE:
            return hold(immutable_owner(<object> root), pointer, nbytes, SHARED)
        if copy is False:
            # A memoryview keeps anyone from closing the mapping.
            return hold(PyMemoryView_FromObject(<object> root) if mapping else array, pointer, nbytes, BORROWED)
        # A small view is copied all the same: taken, it would keep the whole of its base alive.
        if copy is None and popped and holder == SOLE and nbytes >= root_nbytes // 2:
            return hold(array, pointer, nbytes, TAKEN)
    elif copy is False:
        raise ValueError("copy=False, but the array is not contiguous and has to be copied")
    return snapshot_ndarray(array)


cdef Buffer admit_exporter(exporter, copy):
    """Decide between snapshot, borrow and share for the memory of a contiguous bytes-like object.

    Raises
    ------
    TypeError
        If `exporter` is not bytes-like.
    ValueError
        If it is not C-contiguous.
    """
    cdef object view, owner
    cdef Py_buffer bytes_view
    cdef char *pointer
    cdef Py_ssize_t nbytes
    if PyBytes_CheckExact(exporter):
        view = exporter
    else:
        try:
            view = PyMemoryView_FromObject(exporter)
        except TypeError:
            raise TypeError(f"data must be a bytes-like object, got {type(exporter).__name__}") from None
        if not view.c_contiguous:
            raise ValueError("data must be C-contiguous")
    # `view` keeps the memory where it is, so pointer and length outlive this second, short export.
    PyObject_GetBuffer(view, &bytes_view, PyBUF_SIMPLE)
    pointer = <char *> bytes_view.buf
    nbytes = bytes_view.len
    PyBuffer_Release(&bytes_view)
    if copy is None:
        owner = immutable_owner(view)
        if owner is not None:
            return hold(owner, pointer, nbytes, SHARED)
    if copy is False:
        return hold(view, pointer, nbytes, SHARED if PyBytes_CheckExact(view) else BORROWED)
    return duplicate(hold(view, pointer, nbytes, BORROWED))


cdef Buffer duplicate(Buffer buffer):
    """A Buffer with its own copy of the same bytes."""
    cdef Buffer copied = allocate(buffer.nbytes)
    copy_bytes(copied.pointer, buffer.pointer, buffer.nbytes)
    return copied


cdef bint surrender(Buffer buffer):
    """Give the memory up to somebody who may write to it, if nobody else can reach it.

    The caller vouches that whoever lends `buffer` holds the only reference to it and lets it go
    afterwards. False, and nothing is changed, where the memory is shared or may be.
    """
    cdef Py_ssize_t root_nbytes
    cdef PyObject *root
    if buffer.owner is not None:
        if not isinstance(buffer.owner, ndarray):
            return False
        if holder_of_ndarray(<PyObject *> buffer.owner, &root, &root_nbytes) != SOLE:
            return False
    buffer.surrendered = True
    return True
