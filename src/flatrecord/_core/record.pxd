"""ParametersRecord and ArrayRecord: ordered mappings of names to Arrays."""


cdef class ParametersRecord:
    cdef type values_class  # the class's `array_class`, of which the values are
    cdef dict entries  # str -> Array, in order; only ever changed through this class
    cdef object metadata  # `_metadata` of the state_dict that was put in, a copy of our own; or None
    cdef object source  # what `verify` asks: where the arrays were loaded from; or None
    cdef object __weakref__


cdef class ArrayRecord(ParametersRecord):
    pass
