"""What an error says about the entry for which it was raised."""

cdef int add_name(error, name) noexcept
cdef int add_note(error, text) noexcept
cdef str type_name(value)
