"""What another library owns and shows us, or we own and show to it.

Each such library has an adapter, a module outside the core that is imported when the first of its
values is met. What the core asks of an adapter:

``check(value, copy)``
    Raise a TypeError or ValueError if `value` cannot become an Array.
``memory_of(value)``
    The `Memory` in which `value` lies.
``tenants(values)``
    Of values in the same Memory: how many of its users are these values, or what they alone hold; and for
    each value how many Python references to it come from the others. None if the other library
    holds any of them in further ways.
``converts(value)``
    Whether the elements of `value` have to be copied before an ndarray can show them.
``describe(value)``
    Dtype and shape of the ndarray that `expose` gives, at no cost.
``expose(value, memory)``
    An ndarray whose base is a Memory: `memory`, or a new one if `value` is converted.
``identity(value)``
    The same hashable object for values that show the same elements in the same memory.
``Form()``
    The way out: ``check(descr)`` and
    ``make(descr, shape, fortran_order, buffer, root, address, nbytes, offset, writable)``.
"""

import sys
from importlib import import_module

cimport cython

cdef extern from *:
    """
    /* Show memory as writable bytes. PyBuffer_FillInfo alone would never let go of the None that Cython has put into the view. */
    static int flatrecord_show(PyObject *exporter, Py_buffer *view, void *address, Py_ssize_t nbytes, int flags)
    {
        Py_CLEAR(view->obj);
        return PyBuffer_FillInfo(view, exporter, address, nbytes, 0, flags);
    }
    """
    int flatrecord_show(object exporter, Py_buffer *view, void *address, Py_ssize_t nbytes, int flags) except -1

cdef dict ADAPTERS = {}  # name of a library or format -> (name of its class there, name of the adapter's module)


def register(str library, str kind, str module):
    """Let `module` be the adapter for instances of the class `kind` of `library`.

    `kind` is None for a format of files, whose module is asked for by name only.
    """
    ADAPTERS[library] = kind, module


def adapter(str library):
    """The adapter for `library`.

    Raises
    ------
    ModuleNotFoundError
        If the library is not installed.
    """
    try:
        return import_module(ADAPTERS[library][1])
    except ModuleNotFoundError as error:
        if error.name != library:
            raise
        message = f"{library} is not installed: pip install 'flatrecord[{library}]'"
        raise ModuleNotFoundError(message, name=library) from None


cpdef object adapter_of(value):
    """The adapter for `value`; None if there is none. Imports no library that the caller has not."""
    cdef str library, kind, module
    for library, (kind, module) in ADAPTERS.items():
        cls = None if kind is None else getattr(sys.modules.get(library), kind, None)
        if cls is not None and isinstance(value, cls):
            return import_module(module)
    return None


@cython.no_gc_clear  # others in a dying cycle may still read the memory: only dealloc lets go of it
cdef class Region:
    """A run of bytes that is exported as writable, whoever owns it.

    Made by adapters and the core only: nothing checks the address.

    Parameters
    ----------
    owner : object
        Keeps the memory where it is.
    address, nbytes : int

    Notes
    -----
    Thread safety: every attribute is written by `__init__`, before another thread can reach the Region.
    """

    def __init__(self, owner, size_t address, Py_ssize_t nbytes):
        self.owner, self.address, self.nbytes = owner, address, nbytes

    def __getbuffer__(self, Py_buffer *view, int flags):
        flatrecord_show(self, view, <char *> self.address if self.nbytes else <char *> b"", self.nbytes, flags)


@cython.no_gc_clear
cdef class Memory(Region):
    """Memory that another library owns: kept alive, and known who else holds it.

    Parameters
    ----------
    owner : object
        Of the other library.
    address, nbytes : int
        The whole of what the other library manages as one block; zero if that is `elsewhere`.
    elsewhere : bool
        The block is not in the host's memory.

    Notes
    -----
    An adapter's subclass has besides:

    ``key``
        int; the same for all that hold the same block, while any of them lives.
    ``users()``
        How many others hold the block.
    ``is_only_way()``
        Whether nobody can reach the memory but through the block; False where that is not known.
    ``beneath()``
        The `Loan` through which the block is in the other library's hands; None if it is its own.
    ``stay()``
        See to it that the block is not moved or resized, as it is borrowed from now on.

    Thread safety: as that of a Region, `elsewhere` too.
    """

    def __init__(self, owner, size_t address, Py_ssize_t nbytes, bint elsewhere):
        Region.__init__(self, owner, address, nbytes)
        self.elsewhere = elsewhere


@cython.no_gc_clear
cdef class Loan(Region):
    """Memory of ours in the hands of another library, which holds this object for it.

    Parameters
    ----------
    owner : Buffer
    address, nbytes : int

    Notes
    -----
    Thread safety: as that of a Region.
    """
