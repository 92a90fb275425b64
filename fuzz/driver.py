"""The process that fuzzes one target: ``python -m fuzz.driver MODULE [OPTION OF LIBFUZZER ...]``, as `fuzz.session` starts it."""

import importlib
import sys
import tempfile
import warnings
from collections.abc import Iterable

import atheris


def dictionary(words: Iterable[bytes]) -> str:
    """`words` as libFuzzer wants to have them in a file."""
    return "# libFuzzer takes no empty file\n" + "".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in words)


def main() -> None:
    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=["flatrecord"]):
        target = importlib.import_module(name)
    warnings.simplefilter("ignore")  # NumPy's, of strange descrs
    with tempfile.NamedTemporaryFile("w", suffix=".dict") as words:
        words.write(dictionary(target.WORDS))
        words.flush()
        # In the place of a program's name: what libFuzzer has a shell do when it merges in a process of its own.
        command = f"{sys.executable} -m fuzz.driver {name}"
        atheris.Setup([command, *sys.argv[1:], f"-dict={words.name}"], target.check)
        atheris.Fuzz()  # which ends the process


if __name__ == "__main__":
    main()
