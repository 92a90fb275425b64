"""The ``.npy`` header: write and parse.

The format is `NEP 1`_: a magic string, a version, a length, and a Python literal of a dict with the
keys ``descr``, ``fortran_order`` and ``shape``, padded to 64 bytes. What is written here equals what
``numpy.save(..., allow_pickle=False)`` writes, byte for byte. What is parsed here may come from
anybody: nothing is evaluated or unpickled, and every fault is a `ValueError`.

.. _NEP 1: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from copy import deepcopy

import numpy as np
from numpy.lib.format import descr_to_dtype

cimport numpy as cnp
from cpython.object cimport PyObject
from libc.string cimport memcmp
from numpy cimport ndarray

cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX

cdef extern from "platform.h":
    object flatrecord_list_item(object values, Py_ssize_t i)

cnp.import_array()

NUMPY_STYPE = "numpy.ndarray"

cdef bytes MAGIC = b"\x93NUMPY"
cdef enum:
    MAX_DIMS = 64  # NumPy 2's own limit
    MAX_DEPTH = 32  # of a nested descr
    MAX_TEXT = 1 << 20  # bytes of header that are parsed for anybody
    ALIGNMENT = 64  # of the payload in the file
    GROWTH_DIGITS = 21  # room that numpy.save leaves for an axis that grows when appended to
    SLOTS = 1024  # of the cache of written headers


cdef class Header:
    """Dtype, shape, serialization type and ``.npy`` preamble of an array.

    Notes
    -----
    Thread safety: every attribute is written by the thread that makes the Header, before another can reach it.
    """

    def __cinit__(self):
        self.ndim = -1

    def __init__(self):
        raise TypeError("a Header is made by the core, not by a caller")


# ---------------------------------------------------------------------------------------- writing

# A model repeats a handful of dtypes and shapes over thousands of entries, so headers are kept in
# a table by dtype and shape; a newcomer evicts whoever has its slot. Reading and replacing a slot of
# a list is atomic, with or without the GIL, and a lost race costs one header built twice.
cdef list _written = [None] * SLOTS


cdef Py_ssize_t slot_of(ndarray array):
    cdef size_t mixed = <size_t> <PyObject *> cnp.PyArray_DESCR(array) >> 4
    cdef int axis
    for axis in range(cnp.PyArray_NDIM(array)):
        mixed = (mixed ^ <size_t> cnp.PyArray_DIM(array, axis)) * <size_t> 0x9E3779B1
    return (mixed >> 7) % SLOTS


cdef bint is_header_of(Header header, ndarray array):
    """Whether `header` is what `header_of_ndarray` would find in the table."""
    cdef int axis, ndim = cnp.PyArray_NDIM(array)
    cdef Py_ssize_t size
    if header.descr is not <object> cnp.PyArray_DESCR(array) or header.ndim != ndim:
        return False
    if header.fortran_order != is_said_to_be_fortran(array):
        return False
    for axis in range(ndim):
        size = header.sizes[axis] if axis < KEPT_SIZES else <Py_ssize_t> header.shape[axis]
        if size != cnp.PyArray_DIM(array, axis):
            return False
    return True


cdef bint is_said_to_be_fortran(ndarray array):
    """As numpy.save has it: Fortran order is said only where C order would not do."""
    return cnp.PyArray_IS_F_CONTIGUOUS(array) and not cnp.PyArray_IS_C_CONTIGUOUS(array)


cdef Header header_of_ndarray(ndarray array):
    """The header that ``numpy.save`` would write for `array`.

    Raises
    ------
    ValueError
        If the dtype holds Python objects or cannot be written without pickle.
    """
    cdef Py_ssize_t slot = slot_of(array)
    cdef object known = flatrecord_list_item(_written, slot)  # Cython would go by way of a Python int
    cdef Header header
    cdef int axis
    if known is not None and is_header_of(<Header> known, array):
        return <Header> known
    header = Header.__new__(Header)
    header.descr = private_dtype(<object> cnp.PyArray_DESCR(array))
    header.dtype = str(header.descr)
    header.shape = (<object> array).shape
    header.stype = NUMPY_STYPE
    header.fortran_order = is_said_to_be_fortran(array)
    header.preamble = write_preamble(header)
    if header.descr.names is None and header.descr.itemsize > 0:
        header.ndim = cnp.PyArray_NDIM(array)
        for axis in range(min(header.ndim, <int> KEPT_SIZES)):
            header.sizes[axis] = cnp.PyArray_DIM(array, axis)
        _written[slot] = header
    return header


cdef object private_dtype(descr):
    """`descr`, or a copy where it can be changed in place: the names of a structured dtype can."""
    return descr if descr.names is None else deepcopy(descr)


cdef Header header_of_fields(str dtype, shape, str stype):
    """The header of a payload that says itself what it is, or whose `stype` is not ours."""
    cdef Header header = Header.__new__(Header)
    header.dtype = dtype
    header.shape = tuple(shape)
    header.stype = stype
    header.preamble = b""
    return header


cdef object plain_descr(descr):
    """What ``numpy.lib.format.dtype_to_descr`` makes of a dtype that needs no pickle.

    Without the warnings of that function, which could only be silenced for the whole process. And
    without what it makes of float8_e5m2 and complex32, ``<f1`` and ``<W4``, which ``numpy.load`` does
    not know: they are void, as the other types of ml_dtypes.
    """
    # NumPy itself asks this attribute whether a dtype of a new kind, such as StringDType, needs pickle.
    if descr.hasobject or not getattr(type(descr), "_legacy", True):
        raise ValueError(f"dtype {descr} cannot be written without pickle, which is not allowed")
    if descr.names is not None:
        return descr.descr
    try:
        np.dtype(descr.str)
    except TypeError:
        return f"|V{descr.itemsize}"
    return descr.str


cdef bytes write_preamble(Header header):
    cdef object descr = plain_descr(header.descr)
    cdef str text = f"{{'descr': {descr!r}, 'fortran_order': {header.fortran_order}, 'shape': {header.shape!r}, }}"
    if header.shape:
        text += " " * (GROWTH_DIGITS - len(repr(header.shape[-1 if header.fortran_order else 0])))
    cdef bytes encoded
    cdef int version = 1
    try:
        encoded = text.encode("latin-1")
    except UnicodeEncodeError:
        encoded = text.encode("utf-8")
        version = 3
    cdef Py_ssize_t prefix = 10 if version == 1 else 12
    cdef Py_ssize_t padded = round_up(prefix + len(encoded) + 1) - prefix
    if version == 1 and padded > 0xFFFF:
        version, prefix = 2, 12
        padded = round_up(prefix + len(encoded) + 1) - prefix
    return b"".join(
        (
            MAGIC,
            bytes((version, 0)),
            padded.to_bytes(2 if version == 1 else 4, "little"),
            encoded,
            b" " * (padded - len(encoded) - 1),
            b"\n",
        )
    )


cdef Py_ssize_t round_up(Py_ssize_t size):
    # numpy.save pads by a whole 64 bytes where none would do.
    return size + ALIGNMENT - size % ALIGNMENT


# ---------------------------------------------------------------------------------------- parsing


# The descrs that need no second look, for speed.
cdef frozenset PLAIN = frozenset("b1 i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8 c8 c16".split())


cdef struct Cursor:
    const char *at
    const char *end
    bint utf8


cdef object fault(str reason):
    return ValueError(f"not a valid .npy array: {reason}")


cdef int skip_spaces(Cursor *cursor) noexcept:
    while cursor.at < cursor.end and cursor.at[0] in b" \t\r\n":
        cursor.at += 1
    return 0


cdef char peek(Cursor *cursor) noexcept:
    """The next character that is not a space; NUL at the end."""
    skip_spaces(cursor)
    return cursor.at[0] if cursor.at < cursor.end else 0


cdef bint accept(Cursor *cursor, char wanted) noexcept:
    if peek(cursor) != wanted or cursor.at >= cursor.end:
        return False
    cursor.at += 1
    return True


cdef bint accept_word(Cursor *cursor, bytes word) noexcept:
    cdef Py_ssize_t size = len(word)
    if cursor.end - cursor.at < size or memcmp(cursor.at, <const char *> word, size) != 0:
        return False
    cursor.at += size
    return True


cdef object parse_string(Cursor *cursor):
    cdef char quote = cursor.at[0]
    cdef const char *start = cursor.at + 1
    cdef const char *at = start
    cdef bint escaped = False
    while at < cursor.end and at[0] != quote:
        if 0 <= at[0] < c" ":
            raise fault("a string in the header holds a control character")
        if at[0] == c"\\":
            escaped = True
            at += 1
            if at < cursor.end and at[0] not in b"\\'\"nrtxuU":  # all that repr() writes
                raise fault("a string in the header holds an unknown escape")
        at += 1
    if at >= cursor.end:
        raise fault("a string in the header does not end")
    cursor.at = at + 1
    cdef bytes raw = start[:at - start]
    try:
        text = raw.decode("utf-8" if cursor.utf8 else "latin-1")
        if escaped:
            text = text.encode("latin-1", "backslashreplace").decode("unicode_escape")
    except UnicodeError as error:
        raise fault("a string in the header is not text") from error
    return text


cdef object parse_integer(Cursor *cursor):
    cdef Py_ssize_t value = 0
    cdef int digit
    cdef const char *start = cursor.at
    while cursor.at < cursor.end and c"0" <= cursor.at[0] <= c"9":
        digit = cursor.at[0] - c"0"
        if value > (PY_SSIZE_T_MAX - digit) // 10:
            raise fault("a number in the header overflows")
        value = value * 10 + digit
        cursor.at += 1
    if start[0] == c"0" and cursor.at > start + 1:
        raise fault("a number in the header begins with a zero")
    return value


cdef list parse_items(Cursor *cursor, char closing, int depth, bint *comma):
    """The items up to `closing`; `comma` tells whether a comma followed the last."""
    cdef list items = []
    comma[0] = False
    while not accept(cursor, closing):
        if items and not comma[0]:
            raise fault("a comma is missing in the header")
        items.append(parse_literal(cursor, depth + 1))
        comma[0] = accept(cursor, c",")
    return items


cdef object parse_literal(Cursor *cursor, int depth):
    """A string, a non-negative integer, a bool, a tuple or a list of these."""
    cdef char first = peek(cursor)
    cdef list items
    cdef bint comma
    if depth > MAX_DEPTH:
        raise fault("the header is nested too deeply")
    if first == c"'" or first == c'"':
        return parse_string(cursor)
    if c"0" <= first <= c"9":
        return parse_integer(cursor)
    if accept(cursor, c"["):
        return parse_items(cursor, c"]", depth, &comma)
    if accept(cursor, c"("):
        items = parse_items(cursor, c")", depth, &comma)
        if len(items) == 1 and not comma:
            raise fault("a tuple of one in the header lacks its comma")
        return tuple(items)
    if accept_word(cursor, b"True"):
        return True
    if accept_word(cursor, b"False"):
        return False
    if first == c"-":
        raise fault("a number in the header is negative")
    raise fault("the header is not a literal that is expected there")


cdef dict parse_fields(Cursor *cursor):
    """The dict ``{'descr': ..., 'fortran_order': ..., 'shape': ...}``, and nothing after it."""
    cdef dict fields = {}
    cdef object key
    cdef bint comma = True
    if not accept(cursor, c"{"):
        raise fault("the header is not a dict")
    while not accept(cursor, c"}"):
        if not comma:
            raise fault("a comma is missing in the header")
        key = parse_literal(cursor, 0)
        if not isinstance(key, str) or key not in ("descr", "fortran_order", "shape") or key in fields:
            raise fault(f"unexpected or repeated header field {key!r:.80}")
        if not accept(cursor, c":"):
            raise fault("a colon is missing in the header")
        fields[key] = parse_literal(cursor, 0)
        comma = accept(cursor, c",")
    skip_spaces(cursor)
    if cursor.at != cursor.end:
        raise fault("something follows the header's dict")
    if len(fields) != 3:
        raise fault(f"the header has only the fields {sorted(fields)}")
    return fields


cdef bint is_simple_descr(str descr):
    """Whether this is a type string as NumPy writes it, such as ``<f4``, ``|S10`` or ``<M8[ns]``."""
    cdef Py_ssize_t size = len(descr), at = 0, digits
    if at < size and descr[at] in "<>|=":
        at += 1
    if at >= size or descr[at] not in "biufcmMSUV":
        return False
    at += 1
    digits = at
    while at < size and descr[at] in "0123456789":
        at += 1
    if not 1 <= at - digits <= 9:
        return False
    if at < size:
        return descr[at] == "[" and descr[size - 1] == "]" and descr[at + 1 : size - 1].isalnum() and descr.isascii()
    return True


cdef int check_descr(object descr) except -1:
    """Refuse what NumPy would never write, before NumPy reads it."""
    cdef object field, name, word
    cdef set names = set()
    if isinstance(descr, str):
        if not is_simple_descr(descr):
            raise fault(f"descr {descr!r:.80} is not a plain NumPy type")
    elif isinstance(descr, list):
        for field in descr:
            if not isinstance(field, tuple) or not 2 <= len(field) <= 3:
                raise fault("a field of descr is not (name, type) or (name, type, shape)")
            name = field[0]
            if not isinstance(name, str):
                if not (isinstance(name, tuple) and len(name) == 2 and isinstance(name[0], str) and isinstance(name[1], str)):
                    raise fault("a field of descr has no name")
            # NumPy 2.4 refuses these too, but never lets go of the name. Those without one are padding.
            for word in name if isinstance(name, tuple) else (name,):
                if word and word in names:
                    raise fault(f"two fields of descr are called {word!r:.80}")
                names.add(word)
            check_descr(field[1])
            if len(field) == 3:
                check_shape(field[2])
    else:
        raise fault("descr is neither a type nor a list of fields")
    return 0


cdef int check_shape(object shape) except -1:
    if not isinstance(shape, tuple):
        raise fault("a shape is not a tuple of integers")
    for size in <tuple> shape:
        if type(size) is not int:
            raise fault("a shape is not a tuple of integers")
    if len(shape) > MAX_DIMS:
        raise fault(f"a shape has {len(shape)} axes, more than {MAX_DIMS}")
    return 0


cdef Py_ssize_t count_bytes(tuple shape, Py_ssize_t itemsize) except -1:
    """Bytes of an array; a `ValueError` where they, or the part that is not zero, overflow."""
    cdef Py_ssize_t nbytes = max(itemsize, 1), size
    cdef bint empty = itemsize == 0
    for size in shape:
        if size == 0:
            empty = True
        elif nbytes > PY_SSIZE_T_MAX // size:
            raise fault(f"shape {shape} overflows")
        else:
            nbytes *= size
    return 0 if empty else nbytes


cdef object extended_dtype(str descr, str name):
    """The ml_dtypes dtype such as ``bfloat16`` that `name` means and `descr` was written for, or None.

    NumPy cannot tell these by their descr (void, or types that it does not know), so that the name
    beside the header decides.
    """
    import ml_dtypes

    cdef object scalar = getattr(ml_dtypes, name, None) if name.isidentifier() else None
    if not isinstance(scalar, type) or not issubclass(scalar, np.generic):
        return None
    cdef object extended = np.dtype(scalar)
    return extended if descr in (extended.str, f"|V{extended.itemsize}") else None


cdef object read_descr(descr, str name):
    """The dtype that a header's descr stands for, where `name` is the dtype's name that came with it."""
    cdef object found = None
    if isinstance(descr, str) and descr[1:] not in PLAIN:
        found = extended_dtype(descr, name)
        if found is not None:
            return found
    check_descr(descr)
    try:
        found = descr_to_dtype(descr)
    except MemoryError:
        raise
    except Exception as error:  # whatever NumPy thinks of a strange descr
        raise fault(f"{error}") from error
    if found.hasobject or found.subdtype is not None:
        raise fault("its dtype holds Python objects or is a bare sub-array")
    return found


cdef Header parse_header(const char *data, Py_ssize_t size, Py_ssize_t beyond, str dtype, Py_ssize_t *offset):
    """Parse a whole serialized array: header and the payload's length.

    Parameters
    ----------
    data, size : pointer and length in bytes
        The serialized array, or its beginning with the whole header. May come from anybody.
    beyond : int
        How many bytes of the payload lie elsewhere.
    dtype : str
        The name that came beside it. Decides only which ml_dtypes type is meant by a descr that NumPy does not know.
    offset : pointer, filled in
        Where the payload begins, in bytes from `data`.

    Raises
    ------
    ValueError
        As `parse_preamble`; and if the payload is not as long as dtype and shape ask for.
    """
    cdef Py_ssize_t wanted, found
    cdef Header header = parse_preamble(data, size, dtype, offset, &wanted)
    found = size - offset[0] + beyond
    if wanted != found:
        raise fault(f"{header.descr} of shape {header.shape} needs a payload of {wanted} bytes, found {found}")
    return header


cdef Header parse_preamble(const char *data, Py_ssize_t size, str dtype, Py_ssize_t *offset, Py_ssize_t *wanted):
    """Parse what comes before the payload.

    Parameters
    ----------
    data, size, dtype, offset
        As for `parse_header`.
    wanted : pointer, filled in
        How long the payload should be, in bytes.

    Raises
    ------
    ValueError
        If this is not the beginning of a ``.npy`` array of the format's version 1 to 3, or it would need pickle.
    """
    cdef Py_ssize_t prefix, length
    cdef const unsigned char *raw = <const unsigned char *> data
    cdef Cursor cursor
    cdef dict fields
    cdef object descr
    if size < 10 or memcmp(data, <const char *> MAGIC, 6) != 0:
        raise fault("it does not begin with the magic string of NumPy")
    if not 1 <= raw[6] <= 3 or raw[7] != 0:
        raise fault(f"unknown format version {raw[6]}.{raw[7]}")
    prefix = 10 if raw[6] == 1 else 12
    if size < prefix:
        raise fault("it is cut off inside the header")
    length = raw[8] | raw[9] << 8
    if prefix == 12:
        length |= <Py_ssize_t> raw[10] << 16 | <Py_ssize_t> raw[11] << 24
    if length > size - prefix:
        raise fault(f"the header claims {length} bytes, {size - prefix} are there")
    if length > MAX_TEXT:
        raise fault(f"the header has {length} bytes, more than {MAX_TEXT}")
    offset[0] = prefix + length
    cursor.at = data + prefix
    cursor.end = data + offset[0]
    cursor.utf8 = raw[6] == 3
    fields = parse_fields(&cursor)
    check_shape(fields["shape"])
    if not isinstance(fields["fortran_order"], bool):
        raise fault("fortran_order is not a bool")
    descr = read_descr(fields["descr"], dtype)
    wanted[0] = count_bytes(fields["shape"], descr.itemsize)
    cdef Header header = Header.__new__(Header)
    header.descr = descr
    header.dtype = str(descr)
    header.shape = fields["shape"]
    header.stype = NUMPY_STYPE
    header.fortran_order = fields["fortran_order"]
    header.preamble = b""
    return header
