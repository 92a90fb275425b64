"""Records that show files without a name, and reading, hashing and streaming that nobody has ended."""

import io
import os
import tempfile

import numpy as np

from flatrecord import ParametersRecord
from flatrecord.safetensors import load, save
from flatrecord.safetensors.checksums import digests_of
from flatrecord.safetensors.outgoing import Outgoing

descriptor, path = tempfile.mkstemp()
os.close(descriptor)
save({str(i): np.zeros(3 << 20, "u1") for i in range(6)}, path)
mapped, read = load(path), load(path, mmap=False)
views = [array.numpy() for array in mapped.values()]
os.unlink(path)
hashing = iter(digests_of(Outgoing(name, array) for name, array in mapped.items()))
next(hashing)
failed = ParametersRecord({"a": np.arange(3.0)})


def refuse(nbytes):
    raise RuntimeError("enough")


try:
    save(failed, path, keep_input=False, progress=refuse)
except RuntimeError as error:
    kept = error  # whose traceback has it all
stream = io.BytesIO()
mapped.write(stream)
print("done")
