"""ParametersRecord and ArrayRecord: ordered mappings of names to Arrays."""

cimport cython

from collections.abc import Iterator, Mapping, MutableMapping
from copy import deepcopy
from itertools import islice

from numpy import ndarray

from .foreign import adapter

from .absorb cimport absorb
from .array cimport Array, check_copy, exact_str, recast, serialized_length
from .entries cimport FREE_THREADED, Entries, at_one_moment, check_keep_input, entries_of, metadata_of, set_metadata
from .errors cimport type_name
from .foreign cimport adapter_of
from .release cimport come_out
from .ties cimport memory_in_use, ties_of

cdef Py_ssize_t REPR_ENTRIES = 4


cdef class ParametersRecord(Entries):
    """ParametersRecord(array_dict=None, keep_input=False, *, copy=None)\n--\n
    An ordered mapping of names to Arrays: Flower's ``ParametersRecord``, without the copies.

    Parameters
    ----------
    array_dict : mapping or list, optional
        A mapping of `str` to `Array`, `numpy.ndarray` or `torch.Tensor`, mixed as you like. Or a list
        of these, whose keys become ``"0"``, ``"1"``, ...; with `keep_input`, a tuple as well.
    keep_input : bool
        If False (the default), each entry leaves `array_dict` before the next is handled, and an
        ndarray or tensor that nobody else holds is taken over without a copy. A loop variable that
        still names it is a holder, and so is a model whose parameter it shows. If True, `array_dict`
        is left as it is and its arrays are duplicated.
    copy : {None, True, False}, keyword only
        Whether memory is copied: only when needed (the default), always, never. With False the
        record shows whatever is later written to arrays that somebody else still holds.

    Raises
    ------
    TypeError
        If a key is not `str`, a value is neither Array nor ndarray nor tensor, a tensor is not dense
        or of a dtype that NumPy has not, or entries should leave an `array_dict` that does not let them.
    ValueError
        If a dtype needs pickle, or `copy` is False and an array has to be copied: because it is not
        contiguous or, of tensors, on another device, conjugate or negative.
    MemoryError
        If a copy is needed and there is no room for it.

    Notes
    -----
    Equality ignores the order of entries, and compares with any mapping.

    Tied weights, which are one piece of memory under several names, are one piece of memory in the
    record too, and in what comes out of it. The same holds for arrays that overlap in part, where
    they are contiguous; not between a tensor and an ndarray on its memory. `ties` names them and `count_memory` counts their memory once.

    The ``_metadata`` of a ``Module.state_dict()`` stays with the record, for `to_torch_state_dict`.

    All or nothing: keys and values are checked before the first entry leaves `array_dict`, and
    whatever goes wrong later (Ctrl-C too), every entry goes back, in the old order. The message or a
    note of the exception names the key. Should `array_dict` refuse to take an entry back, it is in
    the exception's `not_put_back`, a list of pairs of key and value. The same holds for entries on their way out of the record,
    which always takes them back, unless another thread has added some meanwhile and there is no memory for both.

    Thread safety: may be read and changed from several threads. Each method changes the record in
    one step under the GIL, so that no thread sees half of a change; where there is no GIL, others may see
    some of the entries gone while all are taken out. Each entry goes to one thread, and what others add or replace meanwhile
    stays. A thread that iterates while another adds or removes entries gets a `RuntimeError`, as with `dict`.

    Attribute by attribute: the class of the values never changes; the entries, their metadata and `origin` are those of
    the base class, which says how they are read and replaced.
    """

    array_class = Array  # a subclass of the record may have a subclass of Array here

    def __cinit__(self):
        self.values_class = type(self).array_class

    def __init__(self, array_dict=None, keep_input=False, *, copy=None):
        if array_dict is not None:
            fill(self, array_dict, keep_input, copy)

    @classmethod
    @cython.binding(True)  # the limited API has no classmethod for plain method descriptors
    def from_numpy_ndarrays(cls, ndarrays, *, keep_input=False, copy=None):
        """Make a record from a list of ndarrays, with the keys ``"0"``, ``"1"``, ...

        Parameters
        ----------
        ndarrays : list of numpy.ndarray
            Is empty afterwards unless `keep_input` is True.
        keep_input, copy
            As for the class.

        Returns
        -------
        ParametersRecord
            Of the class it is called on.
        """
        return from_sequence(cls, ndarrays, keep_input, copy)

    @classmethod
    @cython.binding(True)  # the limited API has no classmethod for plain method descriptors
    def from_torch_state_dict(cls, state_dict, keep_input=False, *, copy=None):
        """Make a record from a state_dict.

        Parameters
        ----------
        state_dict : mapping of str to torch.Tensor
            Tensors, parameters and views of any dense dtype, shape and strides, on any device. What
            is on another device is moved to the host one entry at a time.
        keep_input, copy
            As for the class. With ``copy=False`` the record shows the memory of the model: read or
            send it before the next optimizer step changes it.

        Returns
        -------
        ParametersRecord
            Of the class it is called on.

        Raises
        ------
        ModuleNotFoundError
            If torch is not installed.
        TypeError, ValueError, MemoryError
            As for the class.
        """
        return from_state_dict(cls, state_dict, keep_input, copy)

    def to_numpy_ndarrays(self, *, keep_input=True, copy=None):
        """The record's arrays as a list of ndarrays, in order.

        Parameters
        ----------
        keep_input : bool
            If True, the record stays as it is. If False, each entry leaves it before the next is
            handled, and the ndarrays are writable.
        copy : {None, True, False}
            Whether memory is copied: only when needed, always, never. With `keep_input` there is no
            need, and the ndarrays are read-only views unless `copy` is True. Without, there is need
            where somebody else (a view, another record) can still reach the memory, and where it is
            immutable, as received `bytes` are; what nobody else holds is freed entry by entry.

        Returns
        -------
        list of numpy.ndarray

        Raises
        ------
        TypeError
            If an entry's `stype` is not ``numpy.ndarray``.
        ValueError
            If an entry's data is not a valid ``.npy`` array; or if it has to be copied and `copy` is
            False.
        MemoryError
            If a copy is needed and there is no room for it.

        Notes
        -----
        All or nothing: after a failure every entry is in the record again, in the old order.
        """
        return come_out(self, keep_input, copy, None)

    def to_torch_state_dict(self, *, keep_input=True, copy=None):
        """The record's arrays as a state_dict of tensors, in order.

        Parameters
        ----------
        keep_input : bool
            If True, the record stays as it is. If False, each entry leaves it before the next is
            handled, and the tensors are free to be trained: ``load_state_dict(..., assign=True)``
            makes them the model's own.
        copy : {None, True, False}
            As for `to_numpy_ndarrays`. With `keep_input`, the tensors show the record's memory unless
            `copy` is True, and are to be read and copied from only. torch has no read-only tensors. So
            they are inference tensors, on which training raises a RuntimeError, and so does writing
            outside ``torch.inference_mode``, but only when the record has been changed. Writing
            through ``detach()``, ``data``, ``numpy()`` or DLPack is not noticed.

        Returns
        -------
        collections.OrderedDict of str to torch.Tensor
            On the CPU, not requiring gradients. With the ``_metadata`` that the record got.

        Raises
        ------
        ModuleNotFoundError
            If torch is not installed.
        TypeError
            If torch has no such dtype, such as those of text, dates and big-endian numbers; and as
            `to_numpy_ndarrays`.
        ValueError, MemoryError
            As `to_numpy_ndarrays`.

        Notes
        -----
        All or nothing: after a failure every entry is in the record again, in the old order.

        Entries that were tied are views on one storage. ``load_state_dict(..., assign=True)`` makes of
        them two parameters on that storage: tie them again (``model.tie_weights()``) before training.
        """
        return come_out(self, keep_input, copy, adapter("torch").Form())

    def save(self, path, metadata=None, keep_input=True, *, checksum=False, progress=None):
        """Write the record to a safetensors file: `flatrecord.safetensors.save`."""
        return adapter("safetensors").save(
            self, path, metadata, keep_input, checksum=checksum, progress=progress
        )

    @classmethod
    @cython.binding(True)  # the limited API has no classmethod for plain method descriptors
    def load(cls, path, mmap=True, *, keys=None):
        """Make a record of a safetensors file, mapped or read: `flatrecord.safetensors.load`."""
        return adapter("safetensors").load(path, mmap, keys=keys, cls=cls)

    def write(self, stream, metadata=None, keep_input=True):
        """Write the record to a pipe, a socket or another stream: `flatrecord.safetensors.write`."""
        return adapter("safetensors").write(self, stream, metadata, keep_input)

    @classmethod
    @cython.binding(True)  # the limited API has no classmethod for plain method descriptors
    def read(cls, stream, *, limit=None):
        """Read a record from a pipe, a socket or another stream: `flatrecord.safetensors.read`."""
        return adapter("safetensors").read(stream, limit=limit, cls=cls)

    def verify(self, *, contents=False):
        """Check that what the record was loaded from is still what it was.

        Parameters
        ----------
        contents : bool
            Also compare the SHA-256 of each entry with the one that it was saved with. Reads every byte; without
            this, only size, time and inode of the file are looked at.

        Raises
        ------
        ValueError
            If the file has changed, is gone, or another is in its place; or if an entry is not what was saved.
            If there is nothing to compare with: the record was not loaded, or saved without a checksum.
        """
        source = self.origin
        if source is None:
            raise ValueError("the record was not loaded from a file or read from a stream: there is nothing to compare with")
        source.verify(self, contents)

    @property
    def origin(self):
        """What the record was loaded from, which `verify` asks; None if it was not loaded."""
        with cython.critical_section(self):
            return self.source

    @origin.setter
    def origin(self, source):
        with cython.critical_section(self):
            self.source = source

    def count_bytes(self):
        """Number of bytes in the record: the serialized arrays and the keys.

        Returns
        -------
        int
            The sum of ``len(array.data) + len(key)``, in bytes and characters, as Flower counts.
            Nothing is serialized for it.
        """
        cdef Py_ssize_t total = 0
        for key, array in at_one_moment(self).items():
            total += len(<str> key) + serialized_length(<Array?> array)
        return total

    def count_memory(self):
        """Number of bytes of memory that the record keeps in use.

        Returns
        -------
        int
            The arrays' own memory, without headers and keys. What several entries show counts once, so
            that of tied weights it is less than `count_bytes`; of a view that was taken, all of its
            base counts.
        """
        return memory_in_use(list(entries_of(self).values()))

    def ties(self):
        """The entries that share memory.

        Returns
        -------
        list of tuple of str
            Groups of two or more keys, each in the record's order.
        """
        cdef dict entries = entries_of(self).copy()
        return ties_of(list(entries), list(entries.values()))

    def __len__(self):
        return len(entries_of(self))

    def __iter__(self):
        return iter(entries_of(self))

    def __reversed__(self):
        return reversed(entries_of(self))

    def __contains__(self, key):
        return key in entries_of(self)

    def __getitem__(self, key):
        return entries_of(self)[key]

    def __setitem__(self, key, value):
        cdef str name = checked_key(key)
        cdef Array array = checked_array(self, key, value)
        cdef dict entries = entries_of(self)
        entries[name] = array
        while FREE_THREADED and entries is not entries_of(self):  # again, where `put_first` has exchanged them meanwhile
            entries = entries_of(self)
            entries[name] = array

    def __delitem__(self, key):
        del entries_of(self)[key]

    def get(self, key, default=None):
        """The Array of `key`, or `default` if there is none."""
        return entries_of(self).get(key, default)

    def keys(self):
        """A live, set-like view on the keys."""
        return entries_of(self).keys()

    def values(self):
        """A live view on the Arrays."""
        return entries_of(self).values()

    def items(self):
        """A live, set-like view on the pairs of key and Array."""
        return entries_of(self).items()

    def pop(self, key, default=...):
        """Remove `key` and return its Array; `default` if there is none, else a `KeyError`."""
        if default is ...:
            return entries_of(self).pop(key)
        return entries_of(self).pop(key, default)

    def popitem(self):
        """Remove and return the first pair of key and Array; a `KeyError` if the record is empty."""
        cdef dict entries = entries_of(self)
        while entries:
            try:
                for key in entries:
                    array = entries.pop(key, None)
                    if array is not None:
                        return key, array
                    break  # another thread was faster, which there can be where there is no GIL
            except RuntimeError:
                pass  # the same, between two steps of the loop
        raise KeyError("popitem(): the record is empty")

    def clear(self):
        """Remove all entries."""
        entries_of(self).clear()

    def setdefault(self, key, default=None):
        """The Array of `key`; put `default` there first if there is none.

        Raises
        ------
        TypeError
            If `key` is missing and `key` is not `str` or `default` is not an Array.
        """
        cdef dict entries = None
        found = entries_of(self).get(key)
        if found is None:
            key, default = checked_key(key), checked_array(self, key, default)
            while entries is not entries_of(self):  # as in __setitem__
                entries = entries_of(self)
                found = entries.setdefault(key, default)
        return found

    def update(self, other=(), /, **entries):
        """Put in the pairs of a mapping, or of an iterable of pairs, and of the keyword arguments.

        Raises
        ------
        TypeError
            If a key is not `str` or a value is not an Array.
        ValueError
            If one of the pairs is longer or shorter, as `dict` has it.

        Notes
        -----
        All or nothing: after a failure the record is unchanged.
        """
        cdef dict staged = {}, before = {}, present = None
        pairs = ((key, other[key]) for key in other.keys()) if hasattr(other, "keys") else other
        for pair in pairs:
            if not isinstance(pair, (tuple, list)):
                raise TypeError(f"update takes a mapping or pairs of key and Array, got {pair!r:.80}")
            if len(pair) != 2:
                raise ValueError(f"update takes a mapping or pairs of key and Array, got {len(pair)} values: {pair!r:.80}")
            staged[checked_key(pair[0])] = checked_array(self, pair[0], pair[1])
        for key in entries:
            staged[checked_key(key)] = checked_array(self, key, entries[key])
        while present is not entries_of(self):  # as in __setitem__
            present = entries_of(self)
            for key in staged:
                before[key] = present.get(key)
            try:
                present.update(staged)
            except BaseException:  # there was no room for all of them
                for key in before:
                    if before[key] is None:
                        present.pop(key, None)
                    else:
                        present[key] = before[key]
                raise

    def copy(self):
        """A record of the same class with the same Arrays: the memory is shared, not duplicated."""
        cdef ParametersRecord other = type(self).__new__(type(self))
        other.entries.update(entries_of(self))
        with cython.critical_section(self):
            other.metadata, other.source = self.metadata, self.source
        if hasattr(self, "__dict__"):  # of a subclass
            other.__dict__.update(self.__dict__)
        return other

    def __copy__(self):
        return self.copy()

    def __eq__(self, other):
        if isinstance(other, ParametersRecord):
            return entries_of(self) == entries_of(<ParametersRecord> other)
        # A plain dict: the __eq__ of a subclass would get hold of our own.
        if isinstance(other, (dict, Mapping)):
            return entries_of(self) == dict(other)
        return NotImplemented

    __hash__ = None

    def __reduce_ex__(self, protocol):
        cdef dict entries = entries_of(self).copy()
        state = metadata_of(self), getattr(self, "__dict__", None)  # of a subclass
        return type(self), (), state, None, zip(list(entries), list(entries.values()))

    def __setstate__(self, state):
        metadata, attributes = state
        set_metadata(self, metadata)
        if attributes:
            self.__dict__.update(attributes)

    def __repr__(self):
        cdef dict entries = entries_of(self).copy()
        cdef list shown = []
        # Not the items: where there is no memory for their iterator, CPython 3.11 ends the process.
        for key in islice(entries, REPR_ENTRIES):
            shown.append(f"{key!r}: {entries[key]!r}")
        if len(entries) > REPR_ENTRIES:
            shown.append(f"... {len(entries) - REPR_ENTRIES} more")
        return f"{type(self).__name__}({{{', '.join(shown)}}})"


cdef class ArrayRecord(ParametersRecord):
    """ArrayRecord(array_dict=None, keep_input=True, *, copy=None)\n--\n
    `ParametersRecord` by Flower's newer name, where `keep_input` is True unless you say otherwise.

    See `ParametersRecord` for the parameters, the errors and thread safety.
    """

    def __init__(self, array_dict=None, keep_input=True, *, copy=None):
        ParametersRecord.__init__(self, array_dict, keep_input, copy=copy)

    @classmethod
    @cython.binding(True)  # the limited API has no classmethod for plain method descriptors
    def from_numpy_ndarrays(cls, ndarrays, *, keep_input=True, copy=None):
        """Make a record from a list of ndarrays: `ParametersRecord.from_numpy_ndarrays`."""
        return from_sequence(cls, ndarrays, keep_input, copy)

    @classmethod
    @cython.binding(True)  # the limited API has no classmethod for plain method descriptors
    def from_torch_state_dict(cls, state_dict, keep_input=True, *, copy=None):
        """Make a record from a state_dict: `ParametersRecord.from_torch_state_dict`."""
        return from_state_dict(cls, state_dict, keep_input, copy)


cdef inline str checked_key(key):
    """`key` as a plain `str`, so that nobody else's __hash__ or __eq__ runs when it is looked up."""
    if type(key) is str:
        return <str> key
    if not isinstance(key, str):
        raise TypeError(f"a key must be str, got {type(key).__name__}: {key!r:.80}")
    return exact_str(key)


cdef list plain_names(list keys):
    """The keys as plain `str`: the same list, where they are that."""
    cdef list names = []
    for key in keys:
        if type(key) is not str:
            break
    else:
        return keys
    for key in keys:
        names.append(checked_key(key))
    return names


cdef inline Array checked_array(ParametersRecord record, key, value):
    """`value` as an Array of the record's own class, on the same memory."""
    if type(value) is record.values_class:
        return <Array> value
    if not isinstance(value, Array):
        hint = "; Array(value) makes one" if isinstance(value, ndarray) or adapter_of(value) is not None else ""
        raise TypeError(f"key {key!r}: a value must be an Array, got {type_name(value)}{hint}")
    return recast(<Array> value, record.values_class)


cdef object from_sequence(cls, ndarrays, keep_input, copy):
    cdef ParametersRecord record = cls.__new__(cls)
    if not isinstance(ndarrays, (list, tuple)):
        raise TypeError(f"ndarrays must be a list of NumPy arrays, got {type(ndarrays).__name__}")
    fill(record, ndarrays, keep_input, copy)
    return record


cdef str hint_for(source):
    """What to pass in place of something that is no container."""
    if hasattr(source, "state_dict"):
        return ": pass its state_dict()"
    if callable(source):
        return ": call it"
    if isinstance(source, Iterator):
        return ": pass a dict or a list made of it"
    return ""


cdef object from_state_dict(cls, state_dict, keep_input, copy):
    cdef ParametersRecord record = cls.__new__(cls)
    adapter("torch")  # or the error that says that torch is not there
    if not isinstance(state_dict, Mapping):
        message = f"state_dict must be a mapping of str to torch.Tensor, got {type_name(state_dict)}"
        raise TypeError(message + hint_for(state_dict))
    fill(record, state_dict, keep_input, copy)
    return record


cdef int fill(ParametersRecord record, source, keep_input, copy) except -1:
    """Make the entries of a mapping or a list those of `record`, all or nothing."""
    cdef list places, names
    cdef dict staged = {}
    check_copy(copy)
    check_keep_input(keep_input)
    if isinstance(source, (list, tuple)):
        places = list(range(len(source)))
        names = list(map(str, places))
    elif isinstance(source, Mapping):
        places = list(source)
        names = plain_names(places)
    else:
        raise TypeError(f"array_dict must be a mapping or a list of arrays, got {type_name(source)}{hint_for(source)}")
    if not keep_input and not hasattr(source, "__delitem__"):
        raise TypeError(
            f"keep_input=False takes the entries out of the input, which {type(source).__name__} does not allow: "
            "pass keep_input=True, or copy=False as well to share the memory"
        )
    if isinstance(source, ParametersRecord):
        metadata = metadata_of(<ParametersRecord> source)
    else:
        metadata = deepcopy(getattr(source, "_metadata", None))
    absorb(source, places, names, staged, keep_input, copy, record.values_class)
    with cython.critical_section(record):
        record.entries, record.metadata = staged, metadata
    return 0


MutableMapping.register(ParametersRecord)
