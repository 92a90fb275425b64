"""Run Python under AddressSanitizer and UndefinedBehaviorSanitizer, or under Valgrind: `make sanitize` and `make valgrind`.

    python tests/sanitizers/checked.py {sanitize,valgrind} ARGUMENTS OF PYTHON ...

The package is that of build/sanitized or build/debugged, which the Makefile makes.
"""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build"
FAILED = 99  # exit status of a process in which either tool has found something

VALGRIND = [
    "valgrind",
    "--quiet",
    f"--error-exitcode={FAILED}",
    "--leak-check=full",
    "--show-leak-kinds=definite",
    "--errors-for-leak-kinds=definite",
    "--num-callers=40",
    f"--suppressions={HERE / 'valgrind.supp'}",
]
# Python's own allocator would hide where one object ends and the next begins.
COMMON = {"PYTHONMALLOC": "malloc"}


def library(name: str) -> str:
    """Where gcc has one of its libraries."""
    return subprocess.run(["gcc", f"-print-file-name={name}"], check=True, capture_output=True, text=True).stdout.strip()


def sanitizers() -> dict[str, str]:
    """The environment in which a process runs under both sanitizers, leaks included."""
    return COMMON | {
        "LD_PRELOAD": f"{library('libasan.so')} {library('libubsan.so')}",
        "ASAN_OPTIONS": f"detect_leaks=1:allocator_may_return_null=1:exitcode={FAILED}",
        "LSAN_OPTIONS": f"suppressions={HERE / 'leaks.supp'}:print_suppressions=0",
        "UBSAN_OPTIONS": f"print_stacktrace=1:exitcode={FAILED}",
        "PYTHONPATH": f"{BUILD / 'sanitized'}:{HERE / 'each_process'}",
    }


def valgrind() -> dict[str, str]:
    """The environment of a process under Valgrind."""
    return COMMON | {"PYTHONPATH": str(BUILD / "debugged")}


def main() -> None:
    tool, arguments = sys.argv[1], [sys.executable, *sys.argv[2:]]
    if tool == "valgrind":
        os.execvpe("valgrind", [*VALGRIND, *arguments], os.environ | valgrind())
    os.execvpe(sys.executable, arguments, os.environ | sanitizers())


if __name__ == "__main__":
    main()
