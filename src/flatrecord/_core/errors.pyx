"""What an error says about the entry for which it was raised."""


cpdef str type_name(value):
    """The name of a value's type, with its module where another could have the same name."""
    cls = type(value)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


cpdef int add_name(error, name) noexcept:
    """Make `error` name the key: in its message where that is ours to write, else in a note."""
    try:
        if type(error) in (MemoryError, TypeError, ValueError) and len(error.args) == 1:
            error.args = (f"key {name!r}: {error.args[0]}",)
        else:
            add_note(error, f"at key {name!r}")
    except Exception:
        pass  # the error itself matters more
    return 0


cpdef int add_note(error, text) noexcept:
    try:
        error.add_note(text)
    except Exception:
        pass  # the error itself matters more
    return 0
