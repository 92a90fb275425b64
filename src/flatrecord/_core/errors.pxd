"""What an error says about the entry for which it was raised."""

cpdef int add_name(error, name) noexcept
cpdef int add_note(error, text) noexcept
cpdef str type_name(value)
