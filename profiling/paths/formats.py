"""The other libraries that write a model and read it: to a stream or a file, and back."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from .contender import tensors

Arrays = dict[str, np.ndarray]
Named = Mapping[str, Any]


class Format(NamedTuple):
    """A library: how it writes to a stream that cannot be rewound, and how it reads from one of at most so many bytes."""

    dump: Callable[[Arrays, Any], object]
    load: Callable[[Any, int], Iterable[Any]]
    save: Callable[[Arrays, str], object]  # to a file of its own
    open: Callable[[str], Iterable[Any]]
    needs: tuple[str, ...] = ()


def whole(stream: Any, nbytes: int) -> bytes:
    """All that comes from a stream, at most so many bytes, for a library that cannot read one."""
    return io.BufferedReader(stream).read(nbytes)


def dump_safetensors(arrays: Arrays, stream: Any) -> None:
    from safetensors.numpy import save

    stream.write(save(arrays))


def load_safetensors(stream: Any, nbytes: int) -> Iterable[np.ndarray]:
    from safetensors.numpy import load

    return load(whole(stream, nbytes)).values()


def save_safetensors(arrays: Arrays, path: str) -> None:
    from safetensors.numpy import save_file

    save_file(arrays, path)


def open_safetensors(path: str) -> Iterable[np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(path).values()


def save_safetensors_torch(arrays: Arrays, path: str) -> None:
    from safetensors.torch import save_file

    save_file(tensors(arrays), path)


def open_safetensors_torch(path: str) -> Iterable[Any]:
    from safetensors.torch import load_file

    return load_file(path).values()


def dump_torch(arrays: Arrays, stream: Any) -> None:
    import torch

    torch.save(tensors(arrays), stream)


def load_torch(stream: Any, nbytes: int) -> Iterable[Any]:
    import torch

    found: Named = torch.load(io.BytesIO(whole(stream, nbytes)), weights_only=True)
    return found.values()


def open_torch(path: str, mmap: bool = False) -> Iterable[Any]:
    import torch

    found: Named = torch.load(path, weights_only=True, mmap=mmap)
    return found.values()


def load_npz(stream: Any, nbytes: int) -> list[np.ndarray]:
    with np.load(io.BytesIO(whole(stream, nbytes))) as archive:
        return [archive[name] for name in archive]


def save_npz(arrays: Arrays, path: str) -> None:
    with open(path, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # no key is "allow_pickle"


def open_npz(path: str) -> list[np.ndarray]:
    with np.load(path) as archive:
        return [archive[name] for name in archive]


def load_pickle(stream: Any, nbytes: int) -> Iterable[np.ndarray]:
    found: Named = pickle.load(io.BufferedReader(stream))
    return found.values()


def save_pickle(arrays: Arrays, path: str) -> None:
    with open(path, "wb") as file:
        pickle.dump(arrays, file, 5)


def open_pickle(path: str) -> Iterable[np.ndarray]:
    with open(path, "rb") as file:
        found: Named = pickle.load(file)
    return found.values()


def dump_joblib(arrays: Arrays, stream: Any) -> None:
    import joblib

    joblib.dump(arrays, stream)


def load_joblib(stream: Any, nbytes: int) -> Iterable[np.ndarray]:
    import joblib

    found: Named = joblib.load(io.BytesIO(whole(stream, nbytes)))
    return found.values()


def open_joblib(path: str, mmap_mode: str | None = None) -> Iterable[np.ndarray]:
    import joblib

    found: Named = joblib.load(path, mmap_mode=mmap_mode)
    return found.values()


def fobs() -> Any:
    """NVFlare's serializer, which is told of ndarrays first."""
    from nvflare.app_common.decomposers import numpy_decomposers
    from nvflare.fuel.utils import fobs

    numpy_decomposers.register()
    return fobs


FORMATS = {
    "safetensors": Format(dump_safetensors, load_safetensors, save_safetensors, open_safetensors, ("safetensors",)),
    "safetensors, torch": Format(
        dump_safetensors, load_safetensors, save_safetensors_torch, open_safetensors_torch, ("safetensors", "torch")
    ),
    "torch.save": Format(dump_torch, load_torch, lambda arrays, path: dump_torch(arrays, path), open_torch, ("torch",)),
    "numpy.savez": Format(lambda arrays, stream: np.savez(stream, **arrays), load_npz, save_npz, open_npz),  # type: ignore[arg-type]  # as above
    "pickle 5": Format(lambda arrays, stream: pickle.dump(arrays, stream, 5), load_pickle, save_pickle, open_pickle),
    "joblib": Format(dump_joblib, load_joblib, dump_joblib, open_joblib, ("joblib",)),
    "NVFlare FOBS": Format(
        lambda arrays, stream: fobs().dump(arrays, stream),
        lambda stream, nbytes: fobs().load(io.BufferedReader(stream)).values(),
        lambda arrays, path: fobs().dumpf(arrays, path),
        lambda path: fobs().loadf(path).values(),
        ("nvflare",),
    ),
}
STREAMED = {name: found for name, found in FORMATS.items() if name != "safetensors, torch"}  # whose torch part writes bytes as NumPy's does
