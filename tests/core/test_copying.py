"""Copies and comparisons of every size and layout: by pieces, tile by tile, and right to the last byte."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from flatrecord import Array, ParametersRecord

KIB, MIB = 1 << 10, 1 << 20
NOISE = np.random.default_rng(1).integers(0, 256, 24 * MIB, np.uint8)

# Around what changes the way: the GIL is kept, one thread, a mapped block, several pieces.
SIZES = [0, 1, 63, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, MIB - 1, MIB, 2 * MIB + 1, 4 * MIB - 1, 4 * MIB, 9 * MIB + 5, 16 * MIB]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("offset", [0, 1, 16, 4095])
def test_contiguous_copies(size, offset):
    source = NOISE[offset : offset + size]
    array = Array(source)
    assert array.ownership == "snapshot" and array.nbytes == 128 + size
    assert array.numpy().tobytes() == source.tobytes()
    out = array.numpy(copy=True)
    assert out.flags.writeable and np.array_equal(out, source)
    assert array.data[128:] == source.tobytes()


@pytest.mark.parametrize("offset", [0, 1, 7, 16, 100, 4033, 4095])
def test_large_copies_are_aligned_whatever_their_source_is(offset):
    source = NOISE[offset : offset + 3 * MIB].view("f8")
    record = ParametersRecord({"x": source}, keep_input=True)
    for copy in (record["x"].numpy(), record["x"].numpy(copy=True), *record.to_numpy_ndarrays(keep_input=False)):
        assert copy.flags.aligned and copy.ctypes.data % 64 == 0
        assert copy.tobytes() == source.tobytes()


@pytest.mark.parametrize("size", [1, 64 * KIB, 64 * KIB + 1, 9 * MIB + 5])
def test_comparison_sees_one_byte(size):
    source = NOISE[:size].copy()
    array = Array(source)
    assert array == Array(source)
    for at in {0, size // 2, size - 1}:
        source[at] ^= 1
        assert array != Array(source)
        source[at] ^= 1
    assert array == Array(source)


def same(view: np.ndarray) -> None:
    """Whether a snapshot of a view is what NumPy makes of it."""
    array = Array(view)
    assert array.ownership == "snapshot"
    assert array.numpy().tobytes() == view.tobytes()


@st.composite
def any_view(draw):
    """A view on some memory: any axes, in any order, cut, backwards, repeated, of elements of any length."""
    itemsize = draw(st.sampled_from([1, 2, 3, 4, 8, 12, 16, 24, 100, 128, 200]))
    shape = draw(st.lists(st.integers(0, 40), min_size=1, max_size=4).filter(lambda s: np.prod(s) * itemsize <= 4 * MIB))
    view = NOISE[: int(np.prod(shape)) * itemsize].view(f"V{itemsize}").reshape(shape)
    view = view.transpose(draw(st.permutations(range(len(shape)))))
    steps = [draw(st.sampled_from([1, 1, 1, -1, 2, -3])) for _ in shape]
    view = view[tuple(slice(None, None, step) for step in steps)]
    if draw(st.booleans()):
        view = np.broadcast_to(view[None, ...], (draw(st.integers(1, 5)), *view.shape)).transpose(*range(1, view.ndim + 1), 0)
    return view


@settings(max_examples=400, deadline=None)
@given(any_view())
def test_small_views(view):
    array = Array(view)
    assert array.numpy().tobytes() == view.tobytes()


LARGE = {
    **{f"transposed {dtype}": lambda d=dtype: NOISE.view(d).reshape(-1, 512)[:, :-7].T for dtype in ("u1", "f2", ">f4", "f8")},
    "transposed, 12 bytes": lambda: NOISE[: 12 * MIB].view("V12").reshape(-1, 64)[:, 1:].T,
    "transposed, a tile and a bit": lambda: NOISE[: 132 * 9999].view("f4").reshape(-1, 33)[:, :-1].T,
    "one long row": lambda: NOISE.view("u2")[::3],
    "two long rows": lambda: NOISE.view("f4").reshape(2, -1)[:, ::-1],
    "tall": lambda: NOISE.view("f4").reshape(-1, 4)[:, :3].T,
    "flat": lambda: NOISE.view("f4").reshape(4, -1)[:3, 1:].T,
    "channels": lambda: NOISE.view("f4").reshape(6, 64, 64, 256).transpose(0, 3, 1, 2),
    "images": lambda: NOISE.view("f4").reshape(-1, 128, 128, 3).transpose(0, 3, 1, 2),
    "last axis first": lambda: NOISE.view("f4").reshape(96, 256, 256).transpose(2, 0, 1),
    "backwards and turned": lambda: NOISE.view("f4").reshape(96, 256, 256)[::-1, :, ::-1].transpose(1, 2, 0),
    "columns": lambda: NOISE.view("f4").reshape(-1, 1024)[:, 5:1000],
    "broadcast last": lambda: np.broadcast_to(NOISE[: 96 * KIB].reshape(-1, 1), (96 * KIB, 64)),
    "broadcast first": lambda: np.broadcast_to(NOISE[: 2 * MIB : 2], (8, MIB)),
    "astray": lambda: NOISE[3 : 3 + 4 * 5 * MIB].view("f4").reshape(-1, 1024)[:, :1023].T,
}


@pytest.mark.parametrize("make", LARGE.values(), ids=LARGE)
def test_large_views(make):
    view = make()
    assert not view.flags.c_contiguous and view.nbytes > MIB
    same(view)


def test_as_many_axes_as_numpy_has():
    view = np.arange(2.0**12).reshape((2,) * 12 + (1,) * 51).transpose(range(62, -1, -1))[..., None][::-1]
    assert view.ndim == 64
    same(view)
    # Axes that cannot be merged, each of two elements.
    same(np.arange(2.0**18).reshape((2,) * 18).transpose(*range(1, 18, 2), *range(0, 18, 2))[..., ::-1])


def test_a_record_takes_a_snapshot_of_each_layout():
    source = {name: make() for name, make in LARGE.items()}
    record = ParametersRecord(source, keep_input=True)
    for name, view in source.items():
        assert np.array_equal(record[name].numpy().view(np.uint8), np.ascontiguousarray(view).view(np.uint8)), name
