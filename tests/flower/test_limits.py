"""What a message may take: by what it has, and by what it stands for where it names one thing several times."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from flower.peer import message, pulled, sent
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_object_id
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError

from flatrecord._core.parts import extent
from flatrecord.flower import Array, ArrayRecord, limits, pulling
from flatrecord.flower.pulling import pull_and_inflate_object_from_tree, pull_objects
from flatrecord.flower.wire import CHUNK, head
from flatrecord.testing import measure_peak

MIB = 1 << 20


def pull(*contents: bytes):
    """What is made of the last of these objects, of which a peer announces all."""
    *others, root = found = {get_object_id(content): content for content in contents}
    tree = ObjectTree(object_id=root, children=[ObjectTree(object_id=name) for name in others])
    return pull_and_inflate_object_from_tree(tree, found.__getitem__, lambda object_id: None)


def array_of(chunk: bytes, times: int) -> bytes:
    """An Array that names this chunk several times."""
    nbytes = (len(chunk) - chunk.index(b"\0") - 1) * times
    body = json.dumps({"dtype": "uint8", "shape": [nbytes], "stype": "none", "arraychunk_ids": [0] * times}).encode()
    return head("Array", [get_object_id(chunk)], len(body)) + body


def record_of(array: bytes, times: int) -> bytes:
    """A record that names this Array several times."""
    body = json.dumps(dict.fromkeys(map(str, range(times)), get_object_id(array))).encode()
    return head("ArrayRecord", [get_object_id(array)], len(body)) + body


CHUNK_OF_ZEROS = head("ArrayChunk", (), MIB) + bytes(MIB)


@pytest.fixture
def most(monkeypatch):
    """Let arrays take so many bytes, and nothing count but their bytes."""
    monkeypatch.setattr(limits, "BESIDE", 0)
    monkeypatch.setattr(limits, "NAMED", 0)
    return lambda nbytes: monkeypatch.setattr(limits, "MOST", nbytes)


def test_an_array_that_names_one_chunk_again_and_again(most):
    array = array_of(CHUNK_OF_ZEROS, 10)
    most(10 * MIB)
    assert pull(CHUNK_OF_ZEROS, array).nbytes == 10 * MIB
    most(10 * MIB - 1)
    refusal = "the arrays of the message would take 10,485,760 bytes or more, and a message may take 10,485,759: FLATRECORD_MESSAGE_MIB"
    with pytest.raises(ValueError, match=refusal):
        pull(CHUNK_OF_ZEROS, array)


def test_a_record_that_names_one_array_again_and_again(most):
    array = array_of(CHUNK_OF_ZEROS, 2)
    record = record_of(array, 6)
    most(12 * MIB)
    found = pull(CHUNK_OF_ZEROS, array, record)
    assert found.count_memory() == 12 * MIB and found.ties() == []
    most(12 * MIB - 1)
    with pytest.raises(ValueError, match="several times, would take 12,582,912 bytes or more, and a message may take 12,582,911"):
        pull(CHUNK_OF_ZEROS, array, record)


def test_the_order_in_which_a_peer_announces_them_does_not_matter(most):
    array = array_of(CHUNK_OF_ZEROS, 10)
    record = record_of(array, 2)
    most(20 * MIB - 1)
    contents = {get_object_id(content): content for content in (array, record, CHUNK_OF_ZEROS)}
    for names in (list(contents), list(contents)[::-1]):
        with pytest.raises(ValueError, match="would take"):
            pull_objects(names, contents.__getitem__)
    most(20 * MIB)
    assert pull_objects(list(contents), contents.__getitem__).keys() == contents.keys()


def test_all_records_of_a_message_together(most, monkeypatch):
    records = {name: ArrayRecord({key: np.full(MIB, i, "u1") for key in "xy"}) for i, name in enumerate("abc")}
    whole = message(**records)
    contents, nbytes = sent(whole), sum(record["x"].nbytes * 2 for record in records.values())
    monkeypatch.setattr(limits, "BESIDE", MIB)  # for the heads
    most(nbytes - MIB)
    assert pulled(whole, contents) == whole.content
    most(nbytes - MIB - 1)
    with pytest.raises(ValueError, match=f"would take {nbytes:,} bytes or more"):
        pulled(whole, contents)


def test_one_array_in_two_records_is_one_memory(most):
    """It is, whoever names it: what takes it out copies it then."""
    whole = message(a=ArrayRecord({"x": np.zeros(MIB, "u1")}), b=ArrayRecord({"x": np.zeros(MIB, "u1")}))
    contents = sent(whole)
    most(sum(map(len, contents.values())) + MIB)  # the chunk, as it is put in its place
    assert pulled(whole, contents) == whole.content


def test_a_model_of_exactly_the_limit(monkeypatch):
    """What comes along with its arrays is allowed beside."""
    whole = message(a=ArrayRecord({str(i): np.full(size, i % 256, "u1") for i, size in enumerate([9 * MIB, 3 * CHUNK, *[1] * 5000])}))
    contents = sent(whole)
    monkeypatch.setattr(limits, "MOST", 9 * MIB + 3 * CHUNK)
    assert pulled(whole, contents) == whole.content


def test_what_is_really_sent_counts_as_it_comes(most):
    most(3 * MIB)
    contents = [head("ArrayChunk", (), MIB) + bytes([i]) * MIB for i in range(8)]
    by_name = {get_object_id(content): content for content in contents}
    asked = []

    def pull_one(name):
        asked.append(name)
        return by_name[name]

    with pytest.raises(
        ValueError, match=r"what has come of the message, .* take 3,145,788 bytes or more, and a message may take 3,145,728"
    ):
        pull_objects(list(by_name), pull_one, max_concurrent_pulls=1)
    assert len(asked) < len(contents)


def test_room_for_what_is_still_to_come_counts(most):
    """Headers that announce arrays of which no more comes."""
    contents = []
    for i in range(40):
        header = Array(np.zeros(4 * MIB, "u1")).segments()[0]
        contents += [head("ArrayChunk", (), len(header) + 1) + header + bytes([i]), head("None", (), 1) + bytes([i])]
    found = {get_object_id(content): content for content in contents}
    most(40 * MIB)
    with pytest.raises(ValueError, match="the room for the rest of its arrays, take 4"):
        pull_objects(list(found), found.__getitem__)


def test_a_chunk_that_is_announced_again_and_again(most):
    """It lands once more each time, where there is room, as arrays may have a chunk in common."""
    header = Array(np.zeros(100 * CHUNK - 128, "u1")).segments()[0]
    first = head("ArrayChunk", (), CHUNK) + header + bytes(CHUNK - len(header))
    most(20 * CHUNK)
    with pytest.raises(ValueError, match="the room for the rest of its arrays, take"):
        pull_objects([get_object_id(first)] * 100, lambda name: first)


def test_a_header_is_read_once_however_often_its_chunk_is_announced(monkeypatch):
    read = []
    monkeypatch.setattr(pulling, "extent", lambda data: read.append(1) or extent(data))
    header = Array(np.zeros(100, "u1")).segments()[0].tobytes().replace(b"(100,), }" + b" " * 20, b"(1000000000000000,), }" + b" " * 7)
    chunk = head("ArrayChunk", (), len(header)) + header
    pull_objects([get_object_id(chunk)] * 100, lambda name: chunk)
    assert len(read) == 1


@pytest.mark.parametrize("nbytes", [0, 1])
def test_what_is_next_to_nothing_counts_too(monkeypatch, nbytes):
    chunk = head("ArrayChunk", (), nbytes) + bytes(nbytes)
    monkeypatch.setattr(limits, "BESIDE", 0)
    monkeypatch.setattr(limits, "MOST", 300 * limits.NAMED)
    with pytest.raises(ValueError, match="the arrays of the message would take"):
        pull(chunk, array_of(chunk, 301))
    array = array_of(chunk, 10)
    assert len(pull(chunk, array, record_of(array, 200))) == 200
    with pytest.raises(ValueError, match="several times, would take"):
        pull(chunk, array, record_of(array, 300))


def test_flower_goes_on_with_other_messages(most):
    """Its Grid takes what cannot be pulled for one client's failure, and raises anything else."""
    most(3 * MIB)
    for refused in (lambda: pull(CHUNK_OF_ZEROS, array_of(CHUNK_OF_ZEROS, 10)), lambda: pull_objects(["0" * 64], lambda name: b"x")):
        with pytest.raises(ObjectPullError, match="Failed to pull object with ID") as caught:
            refused()
        assert isinstance(caught.value, ValueError)


@pytest.mark.memory
def test_nothing_is_allocated_for_what_is_refused(most):
    """Some 200 KB that stand for 100 GB."""
    chunk = head("ArrayChunk", (), CHUNK) + bytes(CHUNK)
    array = array_of(chunk, 200)
    record = record_of(array, 100)
    most(1 << 30)
    with measure_peak() as peak, pytest.raises(ValueError, match="the arrays of the message, some of which are there several times"):
        pull(chunk, array, record)
    assert peak.nbytes < CHUNK + MIB


@pytest.mark.parametrize(
    "change", [(b"[0", b"[1"), (b"[0", b"[-9"), (b"[0", b"[{}"), (b"[0", b"0"), (b"[", b""), (b"arraychunk_ids", b"ids")]
)
def test_what_is_broken_is_refused_as_before(most, change):
    most(MIB)
    array = array_of(CHUNK_OF_ZEROS, 1)
    body = array[array.index(b"\0") + 1 :].replace(*change)
    with pytest.raises(ValueError, match=r"Array|Expecting|delimiter"):
        pull(head("ArrayChunk", (), 1) + b"x", head("Array", [get_object_id(head("ArrayChunk", (), 1) + b"x")], len(body)) + body)
    with pytest.raises(ValueError, match="names"):
        pull(head("ArrayRecord", (), 9) + b'{"x":[1]}')


def test_it_is_the_machines_memory_if_nothing_is_said():
    with open("/proc/meminfo") as file:
        total = int(next(line for line in file if line.startswith("MemTotal")).split()[1]) << 10
    assert limits.MOST == limits.machine_memory() == total


def test_no_limit_where_the_system_does_not_say(most, monkeypatch):
    monkeypatch.delattr(os, "sysconf")
    assert limits.machine_memory() is None
    most(None)
    assert pull(CHUNK_OF_ZEROS, array_of(CHUNK_OF_ZEROS, 3)).nbytes == 3 * MIB


def started(setting: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "FLATRECORD_MESSAGE_MIB": setting}
    command = [sys.executable, "-c", "from flatrecord.flower import limits; print(limits.MOST)"]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_the_environment_says_how_much():
    assert started("3").stdout == "3145728\n"


@pytest.mark.parametrize("setting", ["0", "-1", "all", "0.5"])
def test_a_setting_that_is_no_size(setting):
    refusal = f"ValueError: FLATRECORD_MESSAGE_MIB must be a whole number from 1 to 1099511627776, got {setting!r}"
    assert refusal in started(setting).stderr


def test_what_comes_out_is_no_more_than_what_was_counted(most, monkeypatch):
    """By Arrays of all lengths, one of several chunks, some of them the same."""
    rng = np.random.default_rng(0)
    entries = {str(i): rng.integers(0, 2, rng.integers(0, 9) * MIB // 4, "u1") for i in range(5)}
    entries["zeros"] = np.zeros(3 * CHUNK, "u1")
    entries["again"] = entries["zeros"].copy()
    whole = message(a=ArrayRecord(entries))
    nbytes = sum(Array(entry).nbytes for entry in entries.values())
    contents = sent(whole)
    monkeypatch.setattr(limits, "BESIDE", nbytes // 2)
    most(nbytes - limits.BESIDE)
    assert sum(array.nbytes for array in pulled(whole, contents)["a"].values()) == nbytes
    most(nbytes - limits.BESIDE - 1)
    with pytest.raises(ValueError, match=f"would take {nbytes:,}"):
        pulled(whole, contents)
