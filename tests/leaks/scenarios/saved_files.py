"""Files: saved and loaded, read and mapped, in one piece and several, with checksums, whole and broken."""

import json
import os
import tempfile
from pathlib import Path

import numpy as np
from _measuring import each, refused, report, turn
from files.written import entry, file_of

from flatrecord import Array, ParametersRecord
from flatrecord.safetensors import inspect, load, save
from flatrecord.safetensors.files import Source

# In memory, where syncing costs nothing; a turn is some 50 system calls all the same, so that 10,000 would take minutes.
FOLDER = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
TURNS = 300
HELD = np.arange(3.0)
BIG_ENDIAN = np.arange(6, dtype=">f4")
# Not text, whose dtypes are new objects each time: up to 1024 of their headers stay in the table of those that were written.
FIELDS = np.zeros(3, [("a", "f4")])


def made():
    return ParametersRecord(
        {
            "plain": np.arange(6.0),
            "strided": np.arange(12.0)[::2],
            "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
            "big-endian": BIG_ENDIAN.copy(),
            "fields": FIELDS.copy(),
            "complex": np.zeros(3, "D"),
            "empty": np.zeros((0, 3), "f4"),
            "mine": Array("mine", (1,), "mine", b"1234"),
        }
    )


PATH = FOLDER / "whole.safetensors"
save(made(), PATH, {"format": "pt"}, checksum=True)
INDEX = FOLDER / "model.safetensors.index.json"
save(ParametersRecord({"other": np.arange(3.0)}), FOLDER / "second.safetensors")
INDEX.write_text(json.dumps({"weight_map": {"plain": PATH.name, "other": "second.safetensors"}}))


@turn(turns=TURNS)
def saved():
    save(made(), FOLDER / "saved.safetensors")
    made().save(FOLDER / "saved.safetensors", {"a": "b"}, keep_input=False)
    save({"a": np.arange(3.0), "b": Array(np.arange(3.0))}, FOLDER / "saved.safetensors", progress=abs)


@turn(turns=TURNS)
def saved_with_checksums():
    save(made(), FOLDER / "saved.safetensors", checksum=True, keep_input=False)


@each({"mapped": True, "read": False}, turns=TURNS)
def loaded(mmap):
    record = load(PATH, mmap)
    part = ParametersRecord.load(PATH, mmap, keys=["plain"])
    view = record["plain"].numpy()
    del record["mine"]
    record.to_numpy_ndarrays(keep_input=False)
    del record, part
    assert view.sum() == 15


@each({"mapped": True, "read": False}, turns=TURNS)
def in_several_files(mmap):
    record = load(INDEX, mmap)
    inspect(INDEX), inspect(PATH)
    assert list(record) == ["plain", "other"]


@turn(turns=TURNS)
def verified():
    record = load(PATH)
    record.verify()
    record.verify(contents=True)
    record["plain"] = Array(np.arange(7.0))
    with refused(ValueError, "key 'plain'"):
        record.verify(contents=True)


@turn(turns=TURNS)
def saved_in_place_of_what_is_mapped():
    record = load(FOLDER / "second.safetensors")
    save(record, FOLDER / "second.safetensors", keep_input=False)
    with refused(ValueError, "nothing to compare with"):
        ParametersRecord().verify()


LARGE = ParametersRecord({str(i): np.zeros(3 << 20, "u1") for i in range(6)})
save(LARGE, FOLDER / "large.safetensors")


@turn(turns=50)  # of 18 MiB each
def large_arrays_that_threads_read():
    assert len(load(FOLDER / "large.safetensors", mmap=False)) == 6


@turn(turns=50)
def a_large_file_that_is_cut_meanwhile():
    path = str(FOLDER / "large.safetensors")
    size = os.path.getsize(path)
    with refused(ValueError, "was cut while it was read"), Source(path) as source:
        os.truncate(path, size // 2)
        source.read(source.layout.slots)
    os.truncate(path, size)


def refuse(nbytes):
    raise RuntimeError("enough")


@turn(turns=TURNS)
def what_fails_in_the_middle():
    """The entries come back as views on the file that got no name."""
    record = made()
    with refused(RuntimeError, "enough"):
        save(record, FOLDER / "saved.safetensors", keep_input=False, progress=refuse)
    assert len(record) == 8
    with refused(RuntimeError, "enough"):
        save(record, FOLDER / "saved.safetensors", keep_input=False, checksum=True, progress=refuse)
    assert len(record) == 8
    record["plain"].numpy()


@turn(turns=TURNS)
def what_cannot_be_saved():
    record = made()
    for path, error in ((FOLDER / "none" / "x", OSError), (FOLDER, ValueError), (INDEX, ValueError), (1, TypeError)):
        with refused(error):
            save(record, path)
    for key, value in (("a", np.array([None])), ("a", [1]), (1, HELD), ("__metadata__", HELD), ("\ud800", HELD)):
        with refused((TypeError, ValueError)):
            save({key: value}, FOLDER / "saved.safetensors")
    with refused(TypeError):
        save(record, FOLDER / "saved.safetensors", {"a": 1})
    with refused(TypeError):
        save({}, FOLDER / "saved.safetensors", keep_input=False)


@turn(turns=TURNS)
def what_cannot_be_loaded():
    for path, error in ((FOLDER / "none", OSError), (FOLDER, OSError), ("/dev/null", ValueError)):
        with refused(error):
            load(path)
    with refused(KeyError):
        load(PATH, keys=["plain", "none"])


def written(name, data):
    (FOLDER / name).write_bytes(data)
    return FOLDER / name


HOSTILE = {
    "nothing": b"",
    "header beyond the file": (1000).to_bytes(8, "little") + b"{}",
    "not UTF-8": file_of(b'{"\xff": 1}'),
    "no JSON": file_of(b"{nonsense}"),
    "duplicate keys": file_of(b'{"a": 1, "b": 2, "a": 1}'),
    "half a surrogate": file_of(b'{"\\ud800": 1}'),
    "metadata that is no text": file_of({"__metadata__": {"a": 1}}),
    "an entry that is no object": file_of({"a": 3}),
    "unknown dtype": file_of({"a": entry("F99")}, b"abcd"),
    "negative size": file_of({"a": entry(shape=[-4])}, b"abcd"),
    "overflow": file_of({"a": entry(shape=[2**62, 4], offsets=(0, 0))}),
    "backwards": file_of({"a": entry(offsets=(4, 0))}, b"abcd"),
    "too small for its shape": file_of({"ok": entry(), "a": entry("F32", offsets=(4, 8))}, b"abcdefgh"),
    "overlap": file_of({"a": entry(), "b": entry(offsets=(2, 6))}, b"abcdef"),
    "our metadata broken": file_of({"__metadata__": {"flatrecord": "{"}}),
    "restored from too little": file_of({"__metadata__": {"flatrecord": '{"serialized": {"a": ["f4", [1]]}}'}, "a": entry()}, b"abcd"),
    "restored by a broken preamble": file_of(
        {"__metadata__": {"flatrecord": '{"serialized": {"a": ["float32", [1], "numpy.ndarray", "junk"]}}'}, "a": entry()}, b"abcd"
    ),
    "a dtype that NumPy has not": file_of({"ok": entry(), "a": entry("F4", [2, 2], (4, 6))}, b"abcdef"),
}


@each({name: written(name.replace(" ", "-"), data) for name, data in HOSTILE.items()}, turns=TURNS)
def hostile(path):
    for mmap in (True, False):
        with refused(ValueError):
            load(path, mmap)


INDEXES = [
    written(f"{i}.index.json", data)
    for i, data in enumerate(
        (b"", b"[]", b"\xff", b'{"weight_map": 1}', b'{"weight_map": {"a": "../x"}}', b'{"weight_map": {"a": "whole.safetensors"}}')
    )
]


@turn(turns=TURNS)
def hostile_indexes():
    for path in INDEXES:
        with refused(ValueError):
            load(path)


try:
    report()
finally:
    for name in os.listdir(FOLDER):
        os.unlink(FOLDER / name)
    FOLDER.rmdir()
