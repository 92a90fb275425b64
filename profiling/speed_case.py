"""The cases of ``python -m profiling speed``, each in a process of its own.

Those who are compared take turns, and of each the fastest turn counts: so the ratios hold on a noisy machine.
"""

from __future__ import annotations

import gc
import io
import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import flatrecord
import flatrecord.safetensors
from flatrecord._core.workers import cores
from flatrecord.profile.resident import status

from . import machine
from .micro import held
from .process import Child

MIB = 1 << 20
Work = Callable[[], Any]


# ------------------------------------------------------------------------------------------ copies


def copies(child: Child, size: str, passes: str) -> None:
    """One contiguous array, by the machine, by NumPy and by us."""
    source = np.random.default_rng(7).integers(0, 256, int(size), np.uint8)
    record = flatrecord.ParametersRecord({"x": source}, keep_input=True, copy=False)
    array = record["x"]

    def numpy_small() -> np.ndarray:
        with machine.small_pages():
            return source.copy()

    def out() -> list[np.ndarray]:
        # The Array is held here too, so that the memory has to be copied on its way out.
        return flatrecord.ParametersRecord({"x": array}).to_numpy_ndarrays(keep_input=False)

    threads = cores()
    works: dict[str, Work] = {
        "the machine: memcpy, a share a thread": lambda: machine.memcpy_shares(source, threads),
        "the machine: memcpy, a huge page a time": lambda: machine.memcpy_pages(source, threads),
        "NumPy: copy(), 4 KiB pages": numpy_small,
        "NumPy: copy(), huge pages": source.copy,
        "Array(ndarray)": lambda: flatrecord.Array(source),
        "ParametersRecord(..., keep_input=True)": lambda: flatrecord.ParametersRecord({"x": source}, keep_input=True),
        "Array.numpy(copy=True)": lambda: array.numpy(copy=True),
        "to_numpy_ndarrays(keep_input=False)": out,
    }
    equal = np.array_equal(works["Array(ndarray)"]().numpy(), source)
    equal = equal and np.array_equal(works["Array.numpy(copy=True)"](), source) and np.array_equal(out()[0], source)
    child.result(seconds=machine.turns(works, int(passes)), nbytes=source.nbytes, threads=threads, equal=bool(equal))


def shape_of(elements: int, *rest: int) -> tuple[int, ...]:
    """A first axis that is long enough for so many elements, and the others."""
    return (max(1, elements // int(np.prod(rest))), *rest)


def views(size: int) -> dict[str, Callable[[], np.ndarray]]:
    """What is not contiguous, of about so many bytes each."""

    def turned(dtype: str) -> Callable[[], np.ndarray]:
        count = size // np.dtype(dtype).itemsize
        return lambda: np.zeros(shape_of(count, 4096), dtype)[:, :-64].T

    return {
        "transposed, float32": turned("f4"),
        "transposed, float32, big-endian": turned(">f4"),
        "transposed, float64": turned("f8"),
        "transposed, bfloat16 or float16": turned("f2"),
        "transposed, uint8": turned("u1"),
        "channels last to first, float32": lambda: np.zeros(shape_of(size // 4, 64, 64, 64), "f4").transpose(0, 3, 1, 2),
        "images to planes, float32": lambda: np.zeros(shape_of(size // 4, 224, 224, 3), "f4").transpose(0, 3, 1, 2),
        "every second, float32": lambda: np.zeros(size // 2, "f4")[::2],
        "backwards, float32": lambda: np.zeros(size // 4, "f4")[::-1],
        "columns, float32": lambda: np.zeros(shape_of(size // 4, 1024), "f4")[:, :1000],
    }


def strided(child: Child, size: str, passes: str) -> None:
    """Arrays that are not contiguous, by NumPy and by us, beside what the machine needs for as many contiguous bytes."""
    rows = {}
    equal = True
    for i, (name, make) in enumerate(views(int(size)).items()):
        child.progress(i, len(views(0)))
        view = make()
        view.flat[: 1 << 16] = np.arange(1 << 16) % 251
        flat = np.ones(view.nbytes, np.uint8)
        works: dict[str, Work] = {
            "machine": partial(machine.memcpy_pages, flat, cores()),
            "numpy": partial(np.ascontiguousarray, view),
            "ours": partial(flatrecord.Array, view),
        }
        equal = equal and bool(np.array_equal(flatrecord.Array(view).numpy(), view))
        rows[name] = {key: seconds / view.nbytes for key, seconds in machine.turns(works, int(passes)).items()}
        del view, flat, works
    child.result(rows=rows, equal=equal)


def sizes(child: Child, largest: str, passes: str) -> None:
    """Snapshots of arrays of every size, beside NumPy's copy of the same: nanoseconds."""
    rows = {}
    exponents = [e for e in (0, 4, 6, 8, 10, 12, 14, 16, 18, *range(20, 40)) if 1 << e <= int(largest)]
    for i, exponent in enumerate(exponents):
        child.progress(i, len(exponents))
        source = np.ones(1 << exponent, np.uint8)
        array = flatrecord.Array(source)
        works: dict[str, Work] = {
            "numpy": partial(source.copy),
            "Array(ndarray)": partial(flatrecord.Array, source),
            "numpy(copy=True)": partial(array.numpy, True),
        }
        loops = max(1, min(2000, (1 << 16) >> exponent))
        rounds = max(int(passes), min(60, (1 << 31) >> exponent))
        best = dict.fromkeys(works, float("inf"))
        gc.disable()
        for _ in range(rounds):
            for name, work in works.items():
                # One result at a time, as in a loop that has no use for the one before.
                began = time.perf_counter_ns()
                for _ in range(loops):
                    result = work()
                    del result
                best[name] = min(best[name], (time.perf_counter_ns() - began) / loops)
        gc.enable()
        rows[str(1 << exponent)] = best
    child.result(rows=rows)


# ------------------------------------------------------------------------------------------ hashes


def hashes(child: Child, size: str, passes: str) -> None:
    """SHA-256 of a record's chunks, as Flower's object ids are."""
    from flatrecord.flower import ArrayRecord
    from flatrecord.flower.chunks import ArrayChunk
    from flatrecord.flower.hashing import object_ids
    from flatrecord.flower.wire import spans

    source = np.random.default_rng(7).integers(0, 256, int(size), np.uint8)
    whole = ArrayRecord({"x": source}, copy=False)
    chunks = [ArrayChunk.of(array, *span) for array in whole.values() for span in spans(array)]
    threads = cores()
    works: dict[str, Work] = {
        "the machine: hashlib, one thread": lambda: machine.sha256(source, 1),
        "the machine: hashlib, a share a thread": lambda: machine.sha256(source, threads),
        "object ids of a record's chunks": lambda: object_ids(chunks),
    }
    child.result(seconds=machine.turns(works, int(passes)), nbytes=source.nbytes, threads=threads)


# ------------------------------------------------------------------------------------------ rounds


def rounds(child: Child, size: str, entry: str, count: str) -> None:
    """Build and drop a record of the same arrays again and again: seconds, page faults, and what stays."""
    entries = max(1, int(size) // int(entry))
    model = {f"layer{i}": np.full(int(entry), i % 251, np.uint8) for i in range(entries)}
    before = status("VmRSS")
    seconds, faults = [], []
    for i in range(int(count)):
        child.progress(i, int(count))
        faulted = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        began = time.perf_counter()
        record = flatrecord.ParametersRecord(model, keep_input=True)
        built = time.perf_counter() - began
        began = time.perf_counter()
        del record
        seconds.append(built + time.perf_counter() - began)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faulted)
    child.result(
        seconds=sorted(seconds)[len(seconds) // 2],
        faults=sorted(faults)[len(faults) // 2],
        kept=max(status("VmRSS") - before, 0),
        nbytes=entries * int(entry),
    )


# ------------------------------------------------------------------------------------------ entries


class Contest:
    """What each of many small entries costs each contender, in nanoseconds."""

    OPERATIONS = 11

    def __init__(self, child: Child, count: int, passes: int) -> None:
        self.keys = [f"model.layers.{i}.weight" for i in range(count)]
        self.rows: dict[str, dict[str, float]] = {}
        self._child, self._passes = child, passes

    def ndarrays(self) -> dict[str, np.ndarray]:
        return {key: np.zeros(16, np.float32) for key in self.keys}

    def row(self, name: str, **contenders: tuple[Callable[[], Any], Callable[[Any], Any]]) -> None:
        """Time what each contender does, which is its second, with what is made for it, by its first."""
        self._child.progress(len(self.rows), self.OPERATIONS)
        best = dict.fromkeys(contenders, float("inf"))
        for _ in range(self._passes):
            for contender, (prepare, work) in contenders.items():
                subject = prepare()
                gc.collect()
                began = time.perf_counter()
                result = work(subject)
                best[contender] = min(best[contender], time.perf_counter() - began)
                del result, subject
        self.rows[name] = {contender: seconds / len(self.keys) * 1e9 for contender, seconds in best.items()}


def entries(child: Child, count: str, passes: str) -> None:
    """Many small entries, each 16 float32, by a dict of ndarrays, by us and by flwr; files beside the format's own library."""
    from flwr.app import ArrayRecord as Stock

    contest = Contest(child, int(count), int(passes))
    row, keys, ndarrays = contest.row, contest.keys, contest.ndarrays
    # Made once, for what only reads.
    arrays, record, stock = ndarrays(), flatrecord.ParametersRecord(ndarrays()), Stock(list(ndarrays().values()))

    def pairs() -> tuple[dict[str, np.ndarray], list[tuple[str, np.ndarray]]]:
        # With the dict that they are of: else dict(list) would get the memory that it has just left, where ours has to have new.
        source = ndarrays()
        return source, list(source.items())

    row(
        "take",
        dict=(pairs, lambda made: dict(made[1])),
        ours=(ndarrays, flatrecord.ParametersRecord),
        flwr=(lambda: list(ndarrays().values()), lambda values: Stock(values, keep_input=False)),
    )
    row(
        "snapshot",
        dict=(ndarrays, lambda source: {key: array.copy() for key, array in source.items()}),
        ours=(ndarrays, lambda source: flatrecord.ParametersRecord(source, keep_input=True)),
        flwr=(lambda: list(ndarrays().values()), lambda values: Stock(values, keep_input=True)),
    )
    row("iterate", dict=(lambda: arrays, list), ours=(lambda: record, list), flwr=(lambda: stock, list))
    row(
        "pop",
        dict=(lambda: dict(arrays), lambda popped: [popped.pop(key) for key in keys]),
        ours=(record.copy, lambda popped: [popped.pop(key) for key in keys]),
        flwr=(stock.copy, lambda popped: [popped.pop(key) for key in list(popped)]),
    )
    row(
        "count_bytes",
        dict=(lambda: arrays, lambda source: sum(len(key) + array.nbytes for key, array in source.items())),
        ours=(lambda: record, flatrecord.ParametersRecord.count_bytes),
        flwr=(lambda: stock, Stock.count_bytes),
    )
    row(
        "to ndarrays",
        ours=(lambda: flatrecord.ParametersRecord(ndarrays()), lambda taken: taken.to_numpy_ndarrays(keep_input=False)),
        flwr=(lambda: stock, Stock.to_numpy_ndarrays),
    )
    _flower_objects(contest)
    with TemporaryDirectory() as folder:
        _files(contest, Path(folder), record, arrays)
    child.result(
        rows=contest.rows,
        nbytes={
            "dict": held(lambda: dict(arrays), len(keys), 0),
            "ours, taken": held(partial(flatrecord.ParametersRecord, ndarrays()), len(keys), 0),
            "ours, snapshots": held(lambda: flatrecord.ParametersRecord(arrays, keep_input=True), len(keys), 64),
            "flwr": held(lambda: Stock(list(arrays.values())), len(keys), 64),
        },
    )


def _flower_objects(contest: Contest) -> None:
    """All objects of a record as they go over Flower's wire."""
    from flwr.app import ArrayRecord as Stock
    from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

    from flatrecord.flower import ArrayRecord

    def deflated(record: Any) -> list[bytes]:
        return [obj.deflate() for obj in get_all_nested_objects(record).values()]

    def distinct() -> list[np.ndarray]:  # what is equal is one object
        return list(np.arange(16 * len(contest.keys), dtype=np.float32).reshape(-1, 16))

    contest.row(
        "Flower's objects",
        ours=(lambda: ArrayRecord(distinct()), deflated),
        flwr=(lambda: Stock(distinct()), deflated),
    )


def _files(contest: Contest, folder: Path, record: flatrecord.ParametersRecord, arrays: dict[str, np.ndarray]) -> None:
    """A file and a stream."""
    import safetensors.numpy as reference

    stream = io.BytesIO()
    record.write(stream)
    wire, packed = stream.getvalue(), reference.save(arrays)
    contest.row(
        "save",
        ours=(lambda: record, lambda record: record.save(folder / "ours")),
        safetensors=(lambda: arrays, lambda arrays: reference.save_file(arrays, folder / "theirs")),
    )
    contest.row(
        "load",
        ours=(lambda: folder / "ours", lambda path: flatrecord.safetensors.load(path, mmap=False)),
        safetensors=(lambda: folder / "theirs", reference.load_file),
    )
    contest.row(
        "wire out",
        ours=(lambda: record, lambda record: record.write(io.BytesIO())),
        safetensors=(lambda: arrays, reference.save),
    )
    contest.row(
        "wire in",
        ours=(lambda: wire, lambda wire: flatrecord.ParametersRecord.read(io.BytesIO(wire))),
        safetensors=(lambda: packed, reference.load),
    )
