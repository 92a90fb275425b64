"""All that comes out of an Array: ndarrays, DLPack, the buffer protocol, segments, chunks that nobody reads to the end."""

import io
import weakref
from itertools import islice

import ml_dtypes
import numpy as np
from _measuring import each, refused, report, turn

from flatrecord import Array, ParametersRecord

ARRAYS = {
    "snapshot": Array(np.arange(6.0).reshape(2, 3)),
    "fortran": Array(np.asfortranarray(np.arange(6.0).reshape(2, 3))),
    "taken": ParametersRecord([np.arange(6.0)])["0"],
    "borrowed": Array(np.arange(6.0), copy=False),
    "received": Array("float64", (6,), "numpy.ndarray", Array(np.arange(6.0)).data),
    "no axes": Array(np.array(1.0)),
    "empty": Array(np.zeros((0, 3), "f4")),
}


@each(ARRAYS)
def as_ndarray(array):
    array.numpy(), array.numpy(False)
    array.numpy(copy=True)[...] = 1
    np.asarray(array), np.array(array), np.asarray(array, "f4")


@each(ARRAYS)
def by_dlpack(array):
    np.from_dlpack(array)
    array.__dlpack__(max_version=(1, 0))  # which nobody takes
    array.__dlpack_device__()


@each(ARRAYS)
def as_buffer(array):
    view = memoryview(array)
    del view
    memoryview(array).release()
    memoryview(array).tobytes()


@each(ARRAYS)
def in_parts(array):
    array.segments()
    header, payload = array.segments()
    bytes(header), bytes(payload), memoryview(payload.obj)
    b"".join(array.chunks(7))
    array.write_to(io.BytesIO())
    array.data, repr(array), array.nbytes


@turn
def chunks_half_way():
    chunks = ARRAYS["snapshot"].chunks(7)
    list(islice(chunks, 3))
    chunks.close()
    next(ARRAYS["snapshot"].chunks())
    ARRAYS["snapshot"].chunks()


@turn
def compared():
    for array in ARRAYS.values():
        for other in ARRAYS.values():
            assert (array == other) in (True, False)
        assert array != 1


@turn
def weakly_referenced():
    array = Array(np.arange(3.0))
    gone = weakref.ref(array)
    del array
    assert gone() is None


class Refusing(io.RawIOBase):
    answer = None

    def write(self, piece):
        return self.answer


@turn
def refused_ways_out():
    array = ARRAYS["snapshot"]
    with refused(TypeError, "copy must be"):
        array.numpy(copy=1)
    with refused(ValueError, "at least 1 byte"):
        array.chunks(0)
    with refused(TypeError, "size must be an integer"):
        array.chunks("1")
    with refused(TypeError, "write method"):
        array.write_to(1)
    with refused(BlockingIOError):
        array.write_to(Refusing())
    for buffer in (array, array.segments()[1]):
        with refused(TypeError, "read-write"):
            io.BytesIO(b"1234").readinto(buffer)
        with refused(ValueError, "WRITEABLE"):
            np.ndarray(3, "u1", buffer).flags.writeable = True
    with refused(ValueError, "read-only"):
        np.from_dlpack(array)[...] = 1
    with refused(ValueError, "copy"):
        np.asarray(array, "f4", copy=False)


BFLOAT = Array(np.arange(3).astype(ml_dtypes.bfloat16))
STRANGE = Array("float32", (1,), "mine", b"1234")
BROKEN = Array("float32", (1,), "numpy.ndarray", b"1234")
OTHER = Array("float32", (7,), "numpy.ndarray", Array(np.arange(6, dtype="f4")).data)


@turn
def what_cannot_be_read():
    with refused(BufferError, "cannot include dtype"):
        memoryview(BFLOAT)
    with refused(BufferError, "cannot be read as"):
        memoryview(STRANGE)
    with refused(TypeError, "cannot be read as"):
        STRANGE.numpy()
    for array in (BROKEN, OTHER):
        with refused(ValueError):
            array.numpy()
        with refused(ValueError):
            np.asarray(array)


report()
