"""What is said where a library of the extra ``profile`` is missing."""

import sys


def missing(module: str) -> str:
    """The library's name, and how to get it, as the end of a sentence."""
    if module == "memray" and sys.platform == "win32":
        return "memray, which does not exist for Windows: use WSL, Linux or macOS"
    return f"{module}: pip install 'flatrecord[profile]'"
