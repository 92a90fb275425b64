"""ParametersRecord and ArrayRecord: ordered mappings of names to Arrays."""

from .entries cimport Entries


cdef class ParametersRecord(Entries):
    cdef type values_class  # the class's `array_class`, of which the values are
    cdef object __weakref__


cdef class ArrayRecord(ParametersRecord):
    pass
