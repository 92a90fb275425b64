"""The header parser: everything that is not a `.npy` array is a ValueError, and nothing is evaluated."""

import io
import struct

import numpy as np
import pytest
from arrays import npy
from hypothesis import given, strategies as st

from flatrecord import Array


def header(text: bytes, version=(1, 0), length=None) -> bytes:
    length = len(text) if length is None else length
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version[0] == 1 else "<I", length) + text


def literal(descr="'<f4'", fortran="False", shape="(2,)") -> bytes:
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}".encode()


def parse(data: bytes, shape=(2,), dtype="float32") -> np.ndarray:
    return Array(dtype, shape, "numpy.ndarray", data).numpy()


PAYLOAD = b"\0" * 8


def test_what_other_writers_may_write():
    for text in (
        literal(),
        literal() + b"   \n",
        b"{'shape':(2,),'fortran_order':False,'descr':'<f4'}",
        b' { "descr" : "<f4" , "fortran_order" : True , "shape" : ( 2 , ) } \n',
    ):
        for version in ((1, 0), (2, 0), (3, 0)):
            data = header(text, version) + PAYLOAD
            assert parse(data).tolist() == np.load(io.BytesIO(data)).tolist() == [0, 0]


HOSTILE = {
    "nothing": b"",
    "no magic": b"\x93NUMPX" + header(literal())[6:] + PAYLOAD,
    "cut in the magic": b"\x93NUM",
    "version 0": header(literal(), (0, 0)) + PAYLOAD,
    "version 4": header(literal(), (4, 0)) + PAYLOAD,
    "version 1.1": header(literal(), (1, 1)) + PAYLOAD,
    "cut in the length": b"\x93NUMPY\x02\x00\x10\x00",
    "header longer than the data": header(literal(), length=60000) + PAYLOAD,
    "header of 4 GiB": header(literal(), (2, 0), length=0xFFFFFFFF) + PAYLOAD,
    "header of 2 MiB": header(b" " * (2 << 20), (2, 0)) + PAYLOAD,
    "no dict": header(b"'<f4'") + PAYLOAD,
    "empty dict": header(b"{}") + PAYLOAD,
    "missing shape": header(b"{'descr': '<f4', 'fortran_order': False}") + PAYLOAD,
    "unknown field": header(literal()[:-1] + b"'x': 1}") + PAYLOAD,
    "repeated field": header(literal()[:-1] + b"'shape': (2,)}") + PAYLOAD,
    "no comma": header(b"{'descr': '<f4' 'fortran_order': False, 'shape': (2,)}") + PAYLOAD,
    "no colon": header(b"{'descr' '<f4'}") + PAYLOAD,
    "not closed": header(literal()[:-1]) + PAYLOAD,
    "string not closed": header(b"{'descr': '<f4") + PAYLOAD,
    "backslash at the end": header(b"{'descr': '<f4\\") + PAYLOAD,
    "something behind": header(literal() + b"; import os") + PAYLOAD,
    "NUL behind": header(literal() + b"\0") + PAYLOAD,
    "a call": header(literal(descr="__import__('os').system('true')")) + PAYLOAD,
    "an expression": header(literal(shape="(1+1,)")) + PAYLOAD,
    "a name": header(literal(fortran="false")) + PAYLOAD,
    "fortran_order 1": header(literal(fortran="1")) + PAYLOAD,
    "shape a list": header(literal(shape="[2]")) + PAYLOAD,
    "shape a number": header(literal(shape="2")) + PAYLOAD,
    "shape without comma": header(literal(shape="(2)")) + PAYLOAD,
    "shape with a bool": header(literal(shape="(True, 2)")) + PAYLOAD,
    "shape with a string": header(literal(shape="('2',)")) + PAYLOAD,
    "negative": header(literal(shape="(-2,)")) + PAYLOAD,
    "float": header(literal(shape="(2.0,)")) + PAYLOAD,
    "long integer": header(literal(shape="(2L,)")) + PAYLOAD,
    "64 bits": header(literal(shape="(18446744073709551616,)")) + PAYLOAD,
    "overflow to 8": header(literal(shape="(4611686018427387906, 4)")) + PAYLOAD,
    "overflow behind a zero": header(literal(shape="(0, 4611686018427387904, 4611686018427387904)")),
    "65 axes": header(literal(shape="(" + "1," * 65 + ")")) + PAYLOAD,
    "payload too short": header(literal()) + PAYLOAD[:-1],
    "payload too long": header(literal()) + PAYLOAD + b"\0",
    "no payload": header(literal()),
    "object": header(literal(descr="'|O'")) + PAYLOAD * 2,
    "object as a plain name": header(literal(descr="'object'")) + PAYLOAD * 2,
    "object in a field": header(literal(descr="[('a', '|O')]")) + PAYLOAD * 2,
    "Python type": header(literal(descr="'int'")) + PAYLOAD * 2,
    "comma string": header(literal(descr="'f4,f4'")) + PAYLOAD * 2,
    "sub-array": header(literal(descr="('<f4', (1,))")) + PAYLOAD,
    "sub-array string": header(literal(descr="'(1,)f4'")) + PAYLOAD,
    "no size": header(literal(descr="'<f'")) + PAYLOAD,
    "no such size": header(literal(descr="'<f3'")) + PAYLOAD,
    "empty descr": header(literal(descr="''")) + PAYLOAD,
    "unit not closed": header(literal(descr="'<M8[ns'")) + PAYLOAD * 2,
    "no such unit": header(literal(descr="'<M8[lightyear]'")) + PAYLOAD * 2,
    "huge item": header(literal(descr="'|S999999999'")) + PAYLOAD,
    "descr None": header(literal(descr="None")) + PAYLOAD,
    "field without type": header(literal(descr="[('a',)]")) + PAYLOAD,
    "field without name": header(literal(descr="[(1, '<f4')]")) + PAYLOAD,
    "field twice": header(literal(descr="[('a', '<f4'), ('a', '<f4')]")) + PAYLOAD * 2,
    "field of negative shape": header(literal(descr="[('a', '<f4', (-1,))]")) + PAYLOAD,
    "field of huge shape": header(literal(descr="[('a', '<f4', (4611686018427387904,))]")) + PAYLOAD,
    "nested deeply": header(literal(descr="[('a', " * 40 + "'<f4'" + ")]" * 40)) + PAYLOAD,
    "nested without end": header(b"[" * 60000) + PAYLOAD,
    "not UTF-8": header(b"{'\xff': 1}", (3, 0)) + PAYLOAD,
    "unknown escape": header("{'a\\中': 1}".encode(), (3, 0)) + PAYLOAD,
    "octal escape": header(b"{'\\101': 1}") + PAYLOAD,
    "name escape": header(b"{'\\N{DIGIT ONE}': 1}") + PAYLOAD,
    "bad escape": header(b"{'\\xZZ': 1}") + PAYLOAD,
    "random": bytes(range(256)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_header_is_a_value_error(name):
    with pytest.raises(ValueError, match=r"not a valid .npy array"):
        parse(HOSTILE[name])


def test_the_error_says_what_was_expected_and_found():
    with pytest.raises(ValueError, match=r"float32 of shape \(2,\) needs a payload of 8 bytes, found 7"):
        parse(HOSTILE["payload too short"])
    with pytest.raises(ValueError, match=r"shape is \(3,\), but the data's header says \(2,\)"):
        parse(header(literal()) + PAYLOAD, shape=(3,))


def test_an_item_of_no_size_reads_no_memory():
    for descr in ("'|S0'", "'<U0'", "'|V0'", "[]"):
        data = header(literal(descr=descr, shape="(1000,)"))
        array = parse(data, (1000,), "some other name")
        assert array.shape == (1000,) and array.nbytes == 0
        assert array.dtype == np.load(io.BytesIO(data)).dtype and not array.flags.writeable


@pytest.mark.parametrize("descr", ["'|S0'", "'<U0'", "'|V0'"])
def test_a_copy_of_items_of_no_size_takes_no_memory_either(descr):
    data = header(literal(descr=descr, shape=f"({2**60},)"))  # which no machine has
    array = Array("", (), "numpy.ndarray", data).numpy(copy=True)
    assert array.shape == (2**60,) and array.nbytes == 0 and array.flags.writeable


def test_void_is_an_extended_type_only_by_a_name_of_its_size():
    data = header(literal(descr="'<V2'", shape="(4,)")) + PAYLOAD
    assert parse(data, (4,), "bfloat16").dtype.name == "bfloat16"
    for name in ("finfo", "__name__", "no such", ""):
        assert parse(data, (4,), name).dtype == np.dtype("V2")
    for name in ("float8_e4m3fn", "float32"):
        with pytest.raises(ValueError, match=rf"dtype is '{name}', but the data's header says '\|V2'"):
            parse(data, (4,), name)


@given(st.data())
def test_a_changed_header_is_read_as_numpy_reads_it_or_refused(data):
    original = npy(np.arange(6, dtype="<i4").reshape(2, 3))
    changed = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, 127))
        changed[position] = data.draw(st.sampled_from(b"{}[](),:'\"\\ \n0123456789-<>|=fiuOSVUTrueFalse\0\xff"))
    try:
        ours = parse(bytes(changed), (2, 3), "no name that NumPy knows")
    except ValueError:
        return
    numpys = np.load(io.BytesIO(bytes(changed)), allow_pickle=False)
    assert (ours.dtype, ours.shape, ours.tobytes()) == (numpys.dtype, numpys.shape, numpys.tobytes())


@given(st.binary(max_size=300))
def test_garbage_is_refused(garbage):
    for data in (garbage, header(garbage[:200]) + garbage, header(garbage[:200], (3, 0)) + garbage):
        with pytest.raises(ValueError, match=r"not a valid .npy array"):
            parse(data)


@given(st.integers(0, 5), st.data())
def test_a_cut_array_is_refused(axes, data):
    whole = npy(np.zeros((2,) * axes))
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(ValueError, match=r"not a valid .npy array"):
        parse(whole[:cut], (2,) * axes)


def test_many_shapes_of_one_slot_of_the_cache():
    for _ in range(2):
        for n in range(5000):
            assert Array(np.empty((n % 71, n), "u1"), copy=False).shape == (n % 71, n)
