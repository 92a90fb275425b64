"""Array: two segments that are what numpy.save writes, and come back as they were."""

import contextlib
import copy
import hashlib
import io
import mmap
import pickle
import sys
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest
from arrays import PADDED, as_void, npy, saved

from flatrecord import Array, array_from_numpy
from flatrecord._core.array import _rebuild
from flatrecord._core.buffer import _restore


class Mine(Array):
    """A subclass that pickle can find."""


def bits(array: np.ndarray) -> tuple:
    return array.dtype, array.shape, array.tobytes()


def test_data_is_what_numpy_saves(dtype, layout):
    array = layout(dtype)
    assert Array(array).data == npy(array)


def test_bytes_without_fields(layout):
    """What NumPy makes of a memoryview on void, and copies nothing of: we copy bytes."""
    given = layout(np.dtype("V7"))
    array = np.asarray(memoryview(given))
    assert array.dtype.names == () and as_void(array).tobytes() == given.tobytes()
    assert Array(array).data == npy(array)
    assert as_void(Array(array).numpy()).tobytes() == given.tobytes()


def test_numpy_gives_back_dtype_shape_order_and_values(dtype, layout):
    array = layout(dtype)
    back = Array(array).numpy()
    assert bits(back) == bits(array)
    if array.nbytes and (array.flags.c_contiguous or array.flags.f_contiguous):
        assert back.flags.f_contiguous == array.flags.f_contiguous
    assert not back.flags.writeable


def test_received_data_gives_the_same_array(dtype, layout):
    array = layout(dtype)
    received = Array(str(array.dtype), list(array.shape), "numpy.ndarray", saved(array))
    assert bits(received.numpy()) == bits(array)
    received = Array(str(array.dtype), list(array.shape), "numpy.ndarray", npy(array))
    assert received == Array(array) and Array(array) == received
    assert np.load(io.BytesIO(Array(array).data)).tobytes() == array.tobytes()


def test_a_dtype_with_gaps(layout):
    array = layout(PADDED)
    packed = Array(array)
    received = Array(packed.dtype, packed.shape, packed.stype, packed.data)
    for back in (packed.numpy(), received.numpy(), pickle.loads(pickle.dumps(packed)).numpy()):
        assert back.dtype == PADDED and np.array_equal(back, array)
    if array.flags.c_contiguous or array.flags.f_contiguous:
        assert packed.data == npy(array)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickle(dtype, layout, protocol):
    array = Array(layout(dtype))
    again = pickle.loads(pickle.dumps(array, protocol))
    assert again == array
    assert again.data == array.data
    assert bits(again.numpy()) == bits(array.numpy())


def test_sources_that_cannot_be_written_to(tmp_path):
    array = np.arange(12.0)
    array.flags.writeable = False
    assert Array(array).data == npy(array)
    np.save(tmp_path / "a.npy", array)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert Array(mapped).data == npy(array)
    assert Array(mapped).ownership == "shared"


def test_fields_of_an_ndarray():
    array = Array(np.zeros((2, 3), "f4"))
    assert (array.dtype, array.shape, array.stype) == ("float32", (2, 3), "numpy.ndarray")
    assert array_from_numpy(np.zeros((2, 3), "f4")).shape == [2, 3]
    assert type(Array.from_numpy_ndarray(np.zeros(3)).shape) is tuple
    assert Array(ndarray=np.zeros(3)) == Array(np.zeros(3))


def test_shape_reads_back_as_given_and_is_copied_inside():
    shape = [2, 3]
    array = Array("float32", shape, "", b"")
    shape.append(4)
    array.shape.append(5)
    assert array.shape == [2, 3]
    assert Array("float32", (2, 3), "", b"").shape == (2, 3)
    assert Array("float32", (2, 3), "", b"") == Array("float32", [2, 3], "", b"")


def test_bytes_are_handed_back_as_the_same_object():
    data = b"12345678"
    array = Array(dtype="float64", shape=[1], stype="", data=data)
    assert array.data is data
    assert array.ownership == "shared"


@pytest.mark.parametrize("make", [bytearray, memoryview, lambda b: np.frombuffer(b, np.uint8)])
def test_data_may_be_any_bytes_like(make):
    array = Array("uint8", [8], "", make(b"12345678"))
    assert array.data == b"12345678"
    assert array.nbytes == 8


def test_writable_data_is_copied_unless_borrowed():
    source = bytearray(b"1234")
    copied, borrowed = Array("", [4], "", source), Array("", [4], "", source, copy=False)
    source[0] = ord("x")
    assert copied.data == b"1234" and copied.ownership == "snapshot"
    assert borrowed.data == b"x234" and borrowed.ownership == "borrowed"
    with pytest.raises(BufferError):
        source.append(1)  # it cannot move while it is borrowed


def test_a_mapping_cannot_be_closed_under_an_array():
    mapping = mmap.mmap(-1, 4096, prot=mmap.PROT_READ)
    array = Array(np.frombuffer(mapping, np.uint8))
    assert array.ownership == "shared"
    with pytest.raises(BufferError):
        mapping.close()
    del array
    mapping.close()


def test_an_array_is_a_snapshot_of_what_its_caller_still_holds():
    source = np.arange(4.0)
    snapshot, borrowed = Array(source), Array(source, copy=False)
    source[0] = 9
    assert snapshot.numpy()[0] == 0 and snapshot.ownership == "snapshot"
    assert borrowed.numpy()[0] == 9 and borrowed.ownership == "borrowed"
    assert Array(np.frombuffer(b"12345678")).ownership == "shared"
    assert Array(np.frombuffer(b"12345678"), copy=True).ownership == "snapshot"


def test_numpy_is_a_view_and_its_copy_is_independent():
    array = Array(np.arange(4.0))
    view = array.numpy()
    assert np.shares_memory(view, array.numpy())
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1
    with pytest.raises(ValueError, match="cannot set WRITEABLE flag"):
        view.flags.writeable = True
    independent = array.numpy(copy=True)
    independent[0] = 9
    assert array.numpy()[0] == 0
    del array
    assert view[1] == 1  # the view keeps the memory


def test_array_protocol():
    array = Array(np.arange(4, dtype="f4"))
    assert np.shares_memory(np.asarray(array), array.numpy())
    assert np.asarray(array, dtype="f8").dtype == np.float64
    assert np.array(array, copy=True).flags.writeable
    with pytest.raises(ValueError, match="Unable to avoid copy"):
        np.array(array, dtype="f8", copy=False)


def test_buffer_protocol():
    array = Array(np.arange(6, dtype="f4").reshape(2, 3))
    with memoryview(array) as view:
        assert (view.format, view.shape, view.readonly) == ("f", (2, 3), True)
        assert view.tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(TypeError, match="read-write"):
        io.BytesIO(b"xxx").readinto(array)


@pytest.mark.parametrize("dtype", ["V4", "M8[s]", "m8[ns]", ml_dtypes.bfloat16, ml_dtypes.float8_e5m2])
def test_a_dtype_that_the_buffer_protocol_has_no_code_for(dtype):
    array = Array(np.zeros((2, 3), dtype))
    with pytest.raises(BufferError, match="segments"):
        memoryview(array)
    # NumPy asks for a buffer first, and falls back on __array__ only where there is none.
    for made in (np.asarray(array), np.array(array), np.stack([array])[0]):
        assert made.dtype == dtype and made.shape == (2, 3)


def test_a_buffer_that_numpy_could_not_read_is_refused():
    array = Array(np.zeros((), [("größe", "<f4"), ("名", "i1")]))  # whose format NumPy takes for 8 bytes an element
    with pytest.raises(BufferError, match="segments"):
        memoryview(array)
    assert np.asarray(array).dtype == array.numpy().dtype


def test_only_numpy_arrays_have_a_buffer():
    with pytest.raises(BufferError, match=r"stype 'torch'.*segments"):
        memoryview(Array("", [3], "torch", b"abc"))
    assert bytes(Array("", [3], "torch", b"abc").segments()[1]) == b"abc"


def test_a_buffer_that_is_refused_costs_no_reference():
    array = Array(np.asfortranarray(np.ones((3, 4))))
    with pytest.raises(ValueError, match=r"not C-contiguous|contiguous"):
        hashlib.md5(array)
    before = sys.getrefcount(None)
    for _ in range(5000):
        with contextlib.suppress(ValueError):
            hashlib.md5(array)
    assert abs(sys.getrefcount(None) - before) < 100


def test_dlpack():
    array = Array(np.arange(3.0))
    assert array.__dlpack_device__() == (1, 0)
    assert np.shares_memory(np.from_dlpack(array), array.numpy())


def test_segments_chunks_and_write_to_are_data_without_joining():
    array = Array(np.arange(1000.0))
    header, payload = array.segments()
    assert bytes(header) + bytes(payload) == array.data
    assert np.shares_memory(np.frombuffer(payload), array.numpy())
    for size in (1, 7, 100, len(header), 200, 5000, 1 << 20):
        chunks = list(array.chunks(size))
        assert b"".join(chunks) == array.data
        assert all(len(chunk) <= size and chunk.readonly for chunk in chunks)
        ends, total = set(), 0
        for chunk in chunks:
            ends.add(total := total + len(chunk))
        assert set(range(size, array.nbytes, size)) <= ends
    file = io.BytesIO()
    assert array.write_to(file) == array.nbytes == len(array.data)
    assert file.getvalue() == array.data
    with pytest.raises(ValueError, match="at least 1"):
        array.chunks(0)
    with pytest.raises(TypeError, match="integer, got str"):
        array.chunks("3")
    with pytest.raises(TypeError, match="write method, got str"):
        array.write_to("path")


def test_write_to_goes_on_after_a_short_write():
    class Slow(io.RawIOBase):
        def __init__(self):
            self.got = bytearray()

        def write(self, piece):
            self.got += piece[:100]
            return len(piece[:100])

    file = Slow()
    array = Array(np.arange(1000.0))
    assert array.write_to(file) == array.nbytes
    assert file.got == array.data


def test_write_to_says_how_far_it_came_when_the_file_blocks():
    class Blocking:
        room = 150

        def write(self, piece):
            count, self.room = min(len(piece), self.room), max(self.room - len(piece), 0)
            return count or None

    with pytest.raises(BlockingIOError) as caught:
        Array(np.arange(1000.0)).write_to(Blocking())
    assert caught.value.characters_written == 150


@pytest.mark.parametrize("count", [0, -1, 10**9])
def test_write_to_believes_no_file_that_cannot_count(count):
    class File:
        def write(self, piece):
            return count

    with pytest.raises(OSError, match=f"returned {count}"):
        Array(np.arange(1000.0)).write_to(File())


def test_equality_goes_by_content():
    array = Array(np.arange(4.0))
    assert array == Array(np.arange(4.0))
    assert array != Array(np.arange(1, 5.0))
    assert array != Array(np.arange(4.0).reshape(2, 2))
    assert array != Array(np.arange(4))
    assert array != Array("float64", (4,), "other", array.data)
    assert array != "array"
    with pytest.raises(TypeError):
        hash(array)


def test_equality_of_one_piece_and_two():
    split = Array(np.arange(4.0))
    data = bytearray(split.data)
    assert split == Array(split.dtype, split.shape, split.stype, bytes(data))
    for position in (10, len(data) - 1):
        changed = bytearray(data)
        changed[position] ^= 1
        other = Array(split.dtype, split.shape, split.stype, bytes(changed))
        assert split != other and other != split


def test_repr_is_bounded():
    text = repr(Array(np.zeros(1 << 20)))
    assert text.startswith("Array(dtype='float64', shape=(1048576,), stype='numpy.ndarray', data=b'\\x93NUMPY")
    assert len(text) < 150
    assert repr(Array("", [3], "", b"abc")) == "Array(dtype='', shape=[3], stype='', data=b'abc')"


def test_pickle_out_of_band_shares_the_memory():
    array = Array(np.arange(1 << 16, dtype="f8"))
    buffers = []
    stream = pickle.dumps(array, 5, buffer_callback=buffers.append)
    assert len(stream) < 1000
    again = pickle.loads(stream, buffers=buffers)
    assert again == array
    assert np.shares_memory(again.numpy(), array.numpy())


def parts(**changes) -> tuple:
    array = Array(np.arange(100, dtype="u1"))
    fields = dict(
        cls=Array, dtype="uint8", shape=(100,), listed=False, stype="numpy.ndarray",
        preamble=bytes(array.segments()[0]), payload=bytes(array.segments()[1]),
    )  # fmt: skip
    return tuple((fields | changes).values())


def rebuilt(*fields, payload) -> Array:
    return _rebuild(*fields, _restore(payload))


@pytest.mark.parametrize(
    "changes, error",
    [
        (dict(preamble=Array(np.arange(100, dtype="u1")).data, payload=b""), ValueError),
        (dict(preamble=Array(np.arange(100, dtype="u1")).data[:-1], payload=b"x"), ValueError),
        (dict(payload=bytes(99)), ValueError),
        (dict(payload=bytes(101)), ValueError),
        (dict(shape=(99,)), ValueError),
        (dict(stype="other"), ValueError),
        (dict(preamble=b"nonsense"), ValueError),
        (dict(preamble=None), TypeError),
        (dict(cls=dict), TypeError),
        (dict(cls=None), TypeError),
        (dict(dtype=None), TypeError),
        (dict(payload=None), TypeError),
        (dict(shape=None), TypeError),
        (dict(preamble=b"", dtype=None), TypeError),
    ],
)
def test_a_pickle_that_was_tampered_with(changes, error):
    *fields, payload = parts()
    assert rebuilt(*fields, payload=payload) == Array(np.arange(100, dtype="u1"))
    with pytest.raises(TypeError, match="Cannot convert bytes"):
        _rebuild(*fields, payload)
    *fields, payload = parts(**changes)
    with pytest.raises(error):
        rebuilt(*fields, payload=payload)


def test_unpickling_changes_no_array_that_is_in_use():
    victim = Array(np.zeros(3))

    class Thief(Array):
        def __new__(cls):
            return victim

    with pytest.raises(TypeError, match="in use"):
        *fields, payload = parts(cls=Thief)
        rebuilt(*fields, payload=payload)
    assert victim.numpy().tolist() == [0, 0, 0]


def test_names_of_a_structured_dtype_that_change_in_place():
    dtype = np.dtype([("a", "i4"), ("b", [("c", "f4")])])
    mine = np.zeros(3, dtype)
    array = Array(mine, copy=False)
    before = array.data
    mine.dtype.names = ("p", "q")
    mine.dtype["q"].names = ("r",)
    array.numpy().dtype.names = ("x", "y")
    assert array.data == before and array.dtype == str(np.dtype([("a", "i4"), ("b", [("c", "f4")])]))
    assert array.numpy().dtype.names == ("a", "b") and array.numpy().dtype["b"].names == ("c",)
    assert Array(mine).data == npy(mine) != before


def test_warning_filters_are_left_alone():
    data = npy(np.zeros(1, [("a\n", "f4")]))
    before = list(warnings.filters)

    def make(thread):
        for i in range(50):
            Array(np.zeros(2, [(f"t{thread}_{i}", "f4"), ("\\", "i1")])).numpy()
            Array("", (1,), "numpy.ndarray", data).numpy()

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(make, range(6)))
    finally:
        sys.setswitchinterval(switch)
    assert warnings.filters == before


def test_copy_and_deepcopy():
    array = Array(np.arange(4.0))
    assert copy.copy(array) is array
    deep = copy.deepcopy(array)
    assert deep == array and not np.shares_memory(deep.numpy(), array.numpy())


def test_immutable():
    array = Array(np.arange(4.0))
    for name in ("dtype", "shape", "stype", "data"):
        with pytest.raises(AttributeError):
            setattr(array, name, getattr(array, name))
    with pytest.raises(TypeError, match="immutable"):
        array.__init__(np.zeros(3))


def test_weak_references_and_subclasses():
    array = Mine(np.zeros(3))
    assert weakref.ref(array)() is array
    assert type(pickle.loads(pickle.dumps(array))) is Mine
    assert type(copy.deepcopy(array)) is Mine
    assert type(Mine.from_numpy_ndarray(np.zeros(3))) is Mine
    array.note = ["kept"]
    for again in (pickle.loads(pickle.dumps(array)), copy.deepcopy(array)):
        assert again.note == ["kept"] and again.note is not array.note
    assert Array(np.str_("float32"), [1], np.str_(""), b"").dtype == "float32"


def test_an_array_that_was_never_initialised_is_empty():
    array = Array.__new__(Array)
    assert (array.dtype, array.shape, array.stype, array.data, array.nbytes) == ("", (), "", b"", 0)


@pytest.mark.parametrize(
    "arguments, error, reason",
    [
        ((), TypeError, "dtype must be str"),
        (("float32",), TypeError, "stype must be str"),
        (("float32", [1], "numpy.ndarray"), TypeError, "data is missing"),
        ((1, [1], "", b""), TypeError, "dtype must be str"),
        (("float32", "abc", "", b""), TypeError, "sequence of integers"),
        (("float32", None, "", b""), TypeError, "sequence of integers"),
        (("float32", [1.5], "", b""), TypeError, "sequence of integers"),
        (("float32", [-1], "", b""), ValueError, "negative"),
        (("float32", [1], "", "text"), TypeError, "bytes-like"),
        (("float32", [1], "", memoryview(b"1234")[::2]), ValueError, "contiguous"),
        ((np.zeros(3), [3]), TypeError, "not both"),
        (([1, 2, 3],), TypeError, "dtype must be str"),
        ((np.array([None]),), ValueError, "object"),
        ((np.zeros(2, [("a", "O")]),), ValueError, "pickle"),
        ((np.array(["text"], np.dtypes.StringDType()),), ValueError, "pickle"),
        ((np.ma.array([1, 2], mask=[0, 1]),), TypeError, "mask"),
    ],
)
def test_wrong_input(arguments, error, reason):
    with pytest.raises(error, match=reason):
        Array(*arguments)


def test_copy_false_where_it_is_impossible():
    with pytest.raises(ValueError, match="contiguous"):
        Array(np.zeros((4, 4))[:, ::2], copy=False)
    with pytest.raises(TypeError, match="copy must be"):
        Array(np.zeros(4), copy="yes")


def test_dtype_has_to_agree_with_the_data():
    data = npy(np.zeros(3, "f4"))
    for same in ("float32", "<f4", "f4", "some_future_dtype"):
        assert Array(same, [3], "numpy.ndarray", data).numpy().dtype == "f4"
    for other in ("float64", ">f4", "int32"):
        with pytest.raises(ValueError, match=f"dtype is '{other}', but the data's header says 'float32'"):
            Array(other, [3], "numpy.ndarray", data).numpy()


def test_numpy_wants_the_numpy_format():
    with pytest.raises(TypeError, match="stype 'torch'"):
        Array("float32", [1], "torch", b"1234").numpy()
