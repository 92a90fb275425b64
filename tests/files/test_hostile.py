"""Files and streams from anybody: a ValueError with the reason, never a crash, never memory on a liar's word."""

import io
import json
import os

import numpy as np
import pytest
from files.written import entry, file_of
from hypothesis import HealthCheck, given, settings, strategies as some
from memory.sizes import MIB

from flatrecord import Array, ParametersRecord
from flatrecord.safetensors import inspect, load, read, save, write
from flatrecord.testing import measure_peak

HUGE = 2**62

HOSTILE = {
    "nothing": (b"", "fewer than the 8"),
    "seven bytes": (b"1234567", "fewer than the 8"),
    "no header": (file_of(b""), "not a JSON object"),
    "header beyond the file": ((1000).to_bytes(8, "little") + b"{}", "claims 1000 bytes, 2 are there"),
    "header beyond 100 MB": ((100_000_001).to_bytes(8, "little") + b"{}", "more than 100000000"),
    "header beyond everything": (b"\xff" * 8 + b"{}", "more than 100000000"),
    "not UTF-8": (file_of(b'{"\xff": 1}'), "not UTF-8 at byte 2"),
    "a list": (file_of([]), "not a JSON object"),
    "leading space": (file_of(b" {}"), "not a JSON object"),
    "no JSON": (file_of(b"{nonsense}"), "JSON is broken"),
    "two objects": (file_of(b"{}{}"), "JSON is broken"),
    "cut JSON": (file_of(b'{"a": '), "JSON is broken"),
    "not a number": (file_of(b'{"a": NaN}'), "holds NaN"),
    "a number of many digits": (file_of(b'{"a": ' + b"9" * 5000 + b"}"), "a number has 5000 digits"),
    "duplicate keys": (file_of(b'{"a": 1, "b": 2, "a": 1}'), "key 'a' comes twice"),
    "duplicate fields": (file_of(b'{"a": {"dtype": "U8", "dtype": "I8"}}'), "key 'dtype' comes twice"),
    "deep nesting": (file_of(b'{"a": ' + b"[" * 200_000), "nested too deeply|JSON is broken"),
    "deep objects": (file_of(b'{"a":' * 100_000), "nested too deeply|JSON is broken"),
    "half a surrogate": (file_of(b'{"\\ud800": 1}'), "is not text"),
    "metadata that is no object": (file_of({"__metadata__": [1]}), "does not map text to text"),
    "metadata that is no text": (file_of({"__metadata__": {"a": 1}}), "does not map text to text"),
    "an entry that is no object": (file_of({"a": 3}), "key 'a': it is not an object"),
    "no offsets": (file_of({"a": {"dtype": "U8", "shape": []}}), "key 'a': it is not an object"),
    "unknown dtype": (file_of({"a": entry("F99")}, b"abcd"), "key 'a': unknown dtype 'F99'"),
    "dtype that is no text": (file_of({"a": entry(["U8"])}, b"abcd"), "key 'a': unknown dtype"),
    "shape that is no list": (file_of({"a": entry(shape=4)}, b"abcd"), "key 'a': its shape 4"),
    "negative size": (file_of({"a": entry(shape=[-4])}, b"abcd"), "key 'a': its shape"),
    "fractional size": (file_of({"a": entry(shape=[4.0])}, b"abcd"), "key 'a': its shape"),
    "a size that is true": (file_of({"a": entry(shape=[True, 4])}, b"abcd"), "key 'a': its shape"),
    "many axes": (file_of({"a": entry(shape=[1] * 65, offsets=(0, 1))}, b"a"), "key 'a': its shape has 65 axes"),
    "size beyond 64 bits": (file_of({"a": entry(shape=[2**63], offsets=(0, 2**63))}), "key 'a': its shape"),
    "overflow": (file_of({"a": entry(shape=[HUGE, 4], offsets=(0, 0))}), "key 'a': its shape .* overflows"),
    "overflow of the item size": (file_of({"a": entry("F64", [HUGE], (0, 0))}), "key 'a': its shape .* overflows"),
    "overflow around nothing": (file_of({"a": entry(shape=[HUGE, 4, 0], offsets=(0, 0))}), "key 'a': its shape .* overflows"),
    "one offset": (file_of({"a": entry(offsets=[4])}, b"abcd"), "key 'a': its data_offsets"),
    "negative offset": (file_of({"a": entry(offsets=(-4, 0))}, b"abcd"), "key 'a': its data_offsets"),
    "backwards": (file_of({"a": entry(offsets=(4, 0))}, b"abcd"), "run backwards"),
    "out of the file": (file_of({"a": entry(shape=[9], offsets=(0, 9))}, b"abcd"), "should have 9 bytes in all, 4 are there"),
    "far out of the file": (file_of({"a": entry(shape=[HUGE], offsets=(0, HUGE))}, b"abcd"), "4 are there"),
    "too much payload": (file_of({"a": entry()}, b"abcde"), "should have 4 bytes in all, 5 are there"),
    "too small for its shape": (file_of({"a": entry("F32")}, b"abcd"), "F32 of shape .* needs 16 bytes, .* hold 4"),
    "too large for its shape": (file_of({"a": entry(shape=[2])}, b"abcd"), "needs 2 bytes"),
    "half a byte": (file_of({"a": entry("F4", [3], (0, 1))}, b"a"), "needs 2 bytes"),
    "overlap": (file_of({"a": entry(), "b": entry(offsets=(2, 6))}, b"abcdef"), "key 'b': .* overlaps"),
    "the same place": (file_of({"a": entry(), "b": entry()}, b"abcd"), "overlaps"),
    "hole": (file_of({"a": entry(), "b": entry(offsets=(6, 10))}, b"abcdefghij"), "key 'b': .* hole of 2 bytes"),
    "hole at the start": (file_of({"a": entry(offsets=(2, 6))}, b"abcdef"), "key 'a': .* hole of 2 bytes"),
    "our metadata broken": (file_of({"__metadata__": {"flatrecord": "{"}}), "JSON is broken"),
    "our metadata a list": (file_of({"__metadata__": {"flatrecord": "[]"}}), "not an object"),
    "our metadata of nobody": (file_of({"__metadata__": {"flatrecord": '{"sha256": {"a": "0"}}'}}), "names key 'a'"),
    "a checksum that is no text": (
        file_of({"__metadata__": {"flatrecord": '{"sha256": {"a": 0}}'}, "a": entry()}, b"abcd"), "not text"
    ),
    "a list of checksums": (file_of({"__metadata__": {"flatrecord": '{"sha256": []}'}}), "not what flatrecord writes"),
}  # fmt: skip


def restored(parts: object, dtype: str = "U8", shape: object = (4,)) -> bytes:
    ours = json.dumps({"serialized": {"a": parts}})
    return file_of({"__metadata__": {"flatrecord": ours}, "a": entry(dtype, shape)}, b"abcd")


NPY = "\x93NUMPY\x01\x00"
HOSTILE |= {
    "restored from nothing": (restored(None), "key 'a': what restores it"),
    "restored from too little": (restored(["f4", [1], "numpy.ndarray"]), "key 'a': what restores it"),
    "restored with a negative size": (restored(["f4", [-1], "x", ""]), "key 'a': what restores it"),
    "restored beyond latin-1": (restored(["f4", [1], "x", "\u4e00"]), "key 'a': what restores it"),
    "restored from half a surrogate": (restored(["\ud800", [1], "x", ""]), "key 'a': what restores it"),
    "restored from other than bytes": (restored(["x", [1], "x", ""], "F32", (1,)), "should be restored from raw bytes"),
    "restored from a table": (restored(["x", [1], "x", ""], "U8", (2, 2)), "should be restored from raw bytes"),
    "restored by a broken preamble": (restored(["float32", [1], "numpy.ndarray", "junk"]), "key 'a': not a valid .npy"),
    "restored by a cut preamble": (restored(["float32", [1], "numpy.ndarray", NPY]), "key 'a': not a valid .npy"),
    "restored with Python objects": (
        restored(["object", [], "numpy.ndarray", NPY + "F\x00{'descr': '|O', 'fortran_order': False, 'shape': (), }" + " " * 21 + "\n"]),
        "key 'a': not a valid .npy",
    ),
}  # fmt: skip


def described(descr: str, shape: str, dtype: str = "x", sizes: object = (1,)) -> bytes:
    """A file in which four bytes are to be restored by a preamble with this descr and shape."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n"
    ours = json.dumps(
        {"serialized": {"a": [dtype, sizes, "numpy.ndarray", NPY + len(text).to_bytes(2, "little").decode("latin-1") + text]}}
    )
    return file_of({"__metadata__": {"flatrecord": ours}, "a": entry(shape=(0,), offsets=(0, 0))})


HOSTILE["restored as another dtype than it says"] = (
    described("'<m8[s]'", "(0,)", "float32", (0,)), "key 'a': the header that was kept of an Array does not agree"
)  # fmt: skip
HOSTILE["restored as dates of no unit"] = (described("[('f0', '<m8[0s]')]", "(0,)", sizes=(0,)), "key 'a': ")


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file(case, tmp_path):
    data, reason = HOSTILE[case]
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    for mmap in (True, False):
        with pytest.raises(ValueError, match=reason) as raised:
            load(path, mmap)
        assert str(raised.value).startswith(f"{path}: ")


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_stream(case):
    data, _ = HOSTILE[case]
    if case == "too much payload":  # which is left in the stream
        return check_rest(data)
    with pytest.raises((ValueError, EOFError, MemoryError)):
        read(io.BytesIO(data))


def check_rest(data: bytes) -> None:
    stream = io.BytesIO(data)
    assert read(stream)["a"].numpy().tobytes() == b"abcd" and stream.read() == b"e"


def test_the_kinds_of_dtype_that_numpy_has_not(tmp_path):
    data = file_of({"ok": entry(), "bad": entry("F4", [2, 2], (4, 6))}, b"abcdef")
    (tmp_path / "x").write_bytes(data)
    for call in (lambda: load(tmp_path / "x"), lambda: load(tmp_path / "x", False), lambda: read(io.BytesIO(data))):
        with pytest.raises(ValueError, match="key 'bad': NumPy has no dtype for safetensors' F4"):
            call()
    assert load(tmp_path / "x", keys=["ok"])["ok"].numpy().tobytes() == b"abcd"
    assert inspect(tmp_path / "x").entries["bad"].dtype == "F4"


def test_more_than_is_needed_is_no_fault(tmp_path):
    # The reference library reads these too: further fields, padding of any kind of space, no metadata.
    header = json.dumps({"__metadata__": None, "a": entry(more=[1])}).encode() + b" \n\t"
    (tmp_path / "x").write_bytes(file_of(header, b"abcd"))
    assert load(tmp_path / "x")["a"].numpy().tolist() == list(b"abcd")


def test_a_stream_that_promises_much_and_brings_nothing():
    huge = file_of({"a": entry(shape=[2**33], offsets=(0, 2**33)), "b": entry(shape=[2**40], offsets=(2**33, 2**33 + 2**40))})
    with pytest.raises((EOFError, MemoryError), match="key 'a'"):
        read(io.BytesIO(huge + b"abc"))
    # A header is only as large in memory as what has come of it.
    with measure_peak() as measured, pytest.raises(EOFError, match="after 3 of the header's 99000000 bytes"):
        read(io.BytesIO((99_000_000).to_bytes(8, "little") + b"{  "))
    assert measured.nbytes < 3 * MIB


@pytest.mark.parametrize("descr", ["'|S0'", "'<U0'", "'|V0'"])
def test_empty_elements_take_no_memory_however_many(descr, tmp_path):
    (tmp_path / "x").write_bytes(described(descr, f"({2**36},)", sizes=(2**36,)))
    with measure_peak() as measured:
        record = load(tmp_path / "x")
        assert record["a"].numpy().shape == (2**36,)
    assert measured.nbytes < 3 * MIB


def test_a_header_that_would_be_too_long_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="more than safetensors' 100000000"):
        save({"x": np.zeros(1)}, tmp_path / "x", {"long": " " * 100_000_000})
    assert os.listdir(tmp_path) == []


REFUSED = {
    "a key that is no text": ({1: np.zeros(1)}, None, TypeError, "a key must be str, got int"),
    "the key of the metadata": ({"__metadata__": np.zeros(1)}, None, ValueError, "keeps this name for itself"),
    "half a surrogate": ({"\ud800": np.zeros(1)}, None, ValueError, "cannot be written as UTF-8"),
    "half a surrogate as stype": ({"a": Array("x", [], "\ud800", b"")}, None, ValueError, "key 'a'"),
    "a number": ({"a": 3.5}, None, TypeError, "key 'a': .* got float"),
    "Python objects": ({"a": np.array([None])}, None, ValueError, "key 'a': .*pickle"),
    "a masked array": ({"a": np.ma.masked_array([1], [True])}, None, TypeError, "key 'a': a masked array"),
    "a broken Array": ({"a": Array("float32", [2], "numpy.ndarray", b"junk")}, None, ValueError, "key 'a': not a valid"),
    "metadata of numbers": ({}, {"a": 1}, TypeError, "metadata must map str to str"),
    "metadata that is a list": ({}, ["a"], TypeError, "metadata must be a mapping"),
    "our own metadata": ({}, {"flatrecord": ""}, ValueError, "'flatrecord' is taken"),
    "metadata that is not text": ({}, {"a": "\udfff"}, ValueError, "cannot be written as UTF-8"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_nothing_is_written_of_what_cannot_be(case, tmp_path):
    entries, metadata, error, reason = REFUSED[case]
    given = {"first": np.ones(3), **entries}
    stream = io.BytesIO()
    with pytest.raises(error, match=reason):
        save(given, tmp_path / "x", metadata)
    with pytest.raises(error, match=reason):
        write(given, stream, metadata)
    assert os.listdir(tmp_path) == [] and stream.getvalue() == b"" and len(given) == 1 + len(entries)


def test_arguments():
    record = ParametersRecord({"x": np.zeros(1)})
    for call, reason in [
        (lambda: save([1], "x"), "record must be a ParametersRecord or a mapping"),
        (lambda: save({}, "x", keep_input=False), "keep_input=False empties a record, and this is a dict"),
        (lambda: save(record, "x", keep_input=0), "keep_input must be True or False"),
        (lambda: save(record, "x", checksum=1), "checksum must be True or False"),
        (lambda: save(record, io.BytesIO()), "path must be str or path-like, got BytesIO; for streams"),
        (lambda: load(3), "path must be str or path-like"),
        (lambda: load("x", mmap="r"), "mmap must be True or False"),
        (lambda: write(record, io.StringIO()), "socket or a binary stream, got StringIO"),
        (lambda: write(record, "x"), "socket or a binary stream, got str"),
        (lambda: read(io.StringIO("x" * 20)), "binary stream, got StringIO"),
        (lambda: read("x"), "socket or a binary stream, got str"),
    ]:
        with pytest.raises(TypeError, match=reason):
            call()
    assert len(record) == 1


# --------------------------------------------------------------------------------- files that are changed


def example() -> bytes:
    stream = io.BytesIO()
    source = {"a": np.arange(6, dtype="f4").reshape(2, 3), "b": np.ones(3, "c16"), "é": np.array(7), "own": Array("x", [2], "y", b"zz")}
    write(source, stream, {"format": "pt", "more": "text"})
    return stream.getvalue()


EXAMPLE = example()
PIECES = [b'"', b"{", b"}", b"[", b"]", b":", b",", b"0", b"9" * 20, b"-1", b"null", b"1e9", b"\\u0000", b"\\ud800", b"F64", b"U8", b"\xff"]


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=some.lists(
        some.tuples(some.integers(0, len(EXAMPLE)), some.integers(0, 12), some.sampled_from(PIECES) | some.binary(max_size=4)),
        min_size=1,
        max_size=4,
    )
)
def test_changed_files(changes, tmp_path):
    data = bytearray(EXAMPLE)
    for at, length, piece in changes:
        data[at : at + length] = piece
    path = tmp_path / "x"
    path.write_bytes(data)
    outcomes = []
    for call in (lambda: load(path), lambda: load(path, False), lambda: read(io.BytesIO(data))):
        try:
            record = call()
            # Whatever was accepted can be read and written again.
            outcomes.append({name: (array.dtype, array.shape, array.stype, array.data) for name, array in record.items()})
            save(record, tmp_path / "again")
            assert load(tmp_path / "again") == record
        except (ValueError, EOFError) as error:
            outcomes.append(type(error))
    assert outcomes[0] == outcomes[1]
    if outcomes[2] is not EOFError and outcomes[0] is not ValueError:
        assert outcomes[2] == outcomes[0]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    entries=some.dictionaries(
        some.text(max_size=4),
        some.fixed_dictionaries(
            {
                "dtype": some.sampled_from(["U8", "F32", "BF16", "F4", "BOOL", "C64", "x"]),
                "shape": some.lists(some.integers(-1, 5) | some.just(2**62), max_size=3),
                "data_offsets": some.lists(some.integers(-1, 40) | some.just(2**63), min_size=1, max_size=3),
            }
        ),
        max_size=3,
    ),
    nbytes=some.integers(0, 40),
)
def test_made_up_headers(entries, nbytes, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(file_of(entries, bytes(nbytes)))
    try:
        record = load(path)
    except ValueError:
        return
    assert sum(array.numpy().nbytes for array in record.values()) == nbytes
