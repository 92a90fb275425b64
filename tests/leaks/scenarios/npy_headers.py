"""``.npy`` headers with each kind of fault, and some without: nothing stays of what was parsed by then."""

from _measuring import each, refused, report

from flatrecord import Array

GOOD = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }"


def data(text: bytes, version: int = 1, payload: bytes = b"1234") -> bytes:
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(2 if version == 1 else 4, "little") + text + payload


def descr(text: str) -> bytes:
    return data(GOOD.replace(b"'<f4'", text.encode()))


def shape(text: str) -> bytes:
    return data(GOOD.replace(b"(1,)", text.encode()))


FAULTS = {
    "nothing": b"",
    "no magic": b"x" * 40,
    "a version to come": data(GOOD, 4),
    "cut": data(GOOD)[:20],
    "cut in the length": data(GOOD, 2)[:11],
    "a long header": data(b" " * (2 << 20), 2),
    "no dict": data(b"[1, 2]"),
    "no key": data(b"{1: 2}"),
    "an unknown key": data(b"{'other': 1}"),
    "a key twice": data(b"{'shape': (1,), 'shape': (1,)}"),
    "no colon": data(b"{'shape' (1,)}"),
    "no comma": data(b"{'shape': (1,) 'descr': '<f4'}"),
    "too few": data(b"{'shape': (1,), 'descr': '<f4'}"),
    "too much": data(GOOD + b"1"),
    "no end": data(b"{'shape': (1, 2"),
    "text without end": data(b"{'shape"),
    "text with a control character": data(b"{'sha\x01pe': 1}"),
    "an unknown escape": data(b"{'sha\\qpe': 1}"),
    "half a surrogate": data(b"{'\\ud800': 1}"),
    "not UTF-8": data(b"{'\xff': 1}", 3),
    "deep": data(b"{'shape': " + b"(" * 60),
    "order that is a number": data(GOOD.replace(b"False", b"0")),
    "a negative size": shape("(-1,)"),
    "a size that overflows": shape(f"({1 << 70},)"),
    "sizes that overflow": shape(f"({1 << 40}, {1 << 40})"),
    "a size with a zero before it": shape("(01,)"),
    "a size that is text": shape("('1',)"),
    "a size that is true": shape("(True,)"),
    "a shape that is a list": shape("[1]"),
    "a shape without its comma": shape("(1)"),
    "many axes": shape("(1," + "1," * 64 + ")"),
    "too large for the payload": shape("(2,)"),
    "objects": descr("'|O'"),
    "an unknown type": descr("'<q9'"),
    "a type of NumPy's that is none": descr("'<f7'"),
    "a date of no unit": descr("'<M8[0s]'"),
    "a number for a type": descr("4"),
    "a field without a type": descr("[('a',)]"),
    "a field without a name": descr("[(1, '<f4')]"),
    "a field of an unknown type": descr("[('a', '<f4'), ('b', '<f7')]"),
    "a field twice": descr("[('abc', '<f2'), ('abc', '<f2')]"),  # whose name NumPy 2.4 never lets go of
    "a title twice": descr("[(('abc', 'a'), '<f2'), ('abc', '<f2')]"),
    "a field with objects": descr("[('a', [('b', '|O')])]"),
    "a field of a shape that is none": descr("[('a', '<f4', 1)]"),
}
FINE = {
    "plain": data(GOOD),
    "version 2": data(GOOD, 2),
    "version 3": data(GOOD, 3),
    "escapes": descr("[('a\\\\x41\\\\n', '<f4')]"),
    "fields": descr("[('a', '<f2'), (('t', 'b'), [('c', '|u1'), ('d', '|V1')])]"),
    "fields of a shape": descr("[('a', '<f2', (1, 2))]"),
    "an unused ml_dtypes name": descr("'|V4'"),
}


@each({name: Array("", (), "numpy.ndarray", found) for name, found in FAULTS.items()})
def a_fault(array):
    with refused(ValueError):
        array.numpy()


@each({name: Array("", (), "numpy.ndarray", found) for name, found in FINE.items()})
def no_fault(array):
    assert array.numpy().nbytes == 4


@each({"bfloat16": "bfloat16", "none": "Generic", "no name": "a b", "a module's": "__name__"})
def an_ml_dtypes_name(name):
    array = Array(name, (1,), "numpy.ndarray", data(GOOD.replace(b"<f4", b"|V2"), payload=b"12"))
    try:
        array.numpy()
    except ValueError:
        assert name != "bfloat16"


report()
