"""Settings from the environment, read once, when flatrecord is imported."""

import os


def number(name: str, default: int | None, least: int, most: int) -> int | None:
    """The number in an environment variable, or the default where it is not set or empty.

    Raises
    ------
    ValueError
        If it holds anything but a number from `least` to `most`.
    """
    text = os.environ.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        raise ValueError(f"{name} must be a whole number from {least} to {most}, got {text!r:.80}")
    return int(text)


THREADS = number("FLATRECORD_THREADS", None, 1, 1024)  # that work on one job; None for as many as there are cores
CACHE_MIB = number("FLATRECORD_CACHE_MIB", 32, 0, 1 << 20)  # of freed memory that may be kept for the next array
MESSAGE_MIB = number("FLATRECORD_MESSAGE_MIB", None, 1, 1 << 40)  # that one message may take; None for the memory of the machine
