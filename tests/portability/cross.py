"""Compile and link the core for systems that are not here: `make cross`.

For each target that C is compiled by clang with the system's C library, both from ziglang, and linked. What it may use
is what that C library has, and what the limited API's headers say that Python has: the linker knows nothing else. Our headers alone are
compiled as C11 with all warnings, which are errors. Python's and NumPy's headers are those of this machine, but for what they
say of it: `TARGETS` has what they would say elsewhere. Nothing is run.
"""

import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import numpy
import setuptools
from setuptools import Extension

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "crossed"
HEADERS = ROOT / "src" / "flatrecord" / "_core"
# Without what zig adds to an unoptimised build.
PLAIN = ("-O0", "-fno-sanitize=all")
STRICT = (
    *("-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror"),
    *("-Wno-unused-function", "-Wno-unused-command-line-argument"),
)

WINDOWS = """
#ifndef Py_CONFIG_H
#define Py_CONFIG_H
/* What Python's headers ask of a 64-bit Windows when they are included with Py_LIMITED_API. */
#include <io.h>
#define MS_WINDOWS
#define MS_WIN64
#define NT_THREADS
#define Py_ENABLE_SHARED 1
#define HAVE_DECLSPEC_DLL
#define SIZEOF_VOID_P 8
#define SIZEOF_SIZE_T 8
#define SIZEOF_LONG 4
#define SIZEOF_LONG_LONG 8
#define SIZEOF_WCHAR_T 2
#define HAVE_SSIZE_T 1
#define ALIGNOF_SIZE_T 8
#endif
"""


@dataclass(frozen=True, eq=False)
class Target:
    """A system to compile for."""

    name: str  # as zig has it
    suffix: str = ".so"
    link: tuple[str, ...] = ()
    python: str | None = None  # its pyconfig.h; None where that of this machine is right for what we include
    numpy: dict[str, str | None] = field(default_factory=dict)  # what its _numpyconfig.h has other than ours; None for not defined

    @property
    def folder(self) -> Path:
        return BUILD / self.name


NO_ENDIAN: dict[str, str | None] = {"NPY_HAVE_ENDIAN_H": None}
SHORT_LONG_DOUBLE = {"NPY_SIZEOF_LONGDOUBLE": "8", "NPY_SIZEOF_COMPLEX_LONGDOUBLE": "16"}
SHORT_LONG = {"NPY_SIZEOF_LONG": "4", "NPY_SIZEOF_WCHAR_T": "2", "NPY_SIZEOF_OFF_T": "4", "NPY_VISIBILITY_HIDDEN": ""}
TARGETS = (
    Target("x86_64-linux-musl", link=("-Wl,-z,defs",)),
    Target("aarch64-linux-gnu", link=("-Wl,-z,defs",)),
    Target("aarch64-macos", numpy=NO_ENDIAN | SHORT_LONG_DOUBLE),
    Target("x86_64-macos", numpy=NO_ENDIAN),
    Target("x86_64-windows-gnu", ".dll", python=WINDOWS, numpy=NO_ENDIAN | SHORT_LONG_DOUBLE | SHORT_LONG),
)


def zig(*command: object) -> str:
    """Run zig; its output.

    Raises
    ------
    SystemExit
        If it fails, with all that it says.
    """
    environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(BUILD / "cache"), "ZIG_LOCAL_CACHE_DIR": str(BUILD / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "ziglang", *map(str, command)], capture_output=True, text=True, cwd=ROOT, env=environment, timeout=900
    )
    if done.returncode:
        raise SystemExit(f"zig {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def prepare(target: Target) -> list[object]:
    """Make the headers of a target; the beginning of a command that compiles for it."""
    python, arrays = target.folder / "python", target.folder / "numpy-include"
    shutil.copytree(sysconfig.get_path("include"), python)
    shutil.copytree(numpy.get_include(), arrays)
    if target.python is not None:
        (python / "pyconfig.h").write_text(target.python)
    config = arrays / "numpy" / "_numpyconfig.h"
    text = config.read_text()
    for name, value in target.numpy.items():
        text, count = re.subn(rf"^#define {name}\b.*$", "" if value is None else f"#define {name} {value}", text, flags=re.MULTILINE)
        assert count == 1, name
    config.write_text(text)
    position = [] if target.python else ["-fPIC"]
    return [
        "cc",
        "-target",
        target.name,
        *PLAIN,
        *position,
        "-isystem",
        python,
        "-isystem",
        arrays,
        "-I",
        HEADERS,
        "-D",
        "Py_LIMITED_API=0x030B0000",
    ]


def names_of_python(compile: list[object]) -> list[str]:
    """What Python has by its limited API: what the headers say is imported, for a target that says so."""
    source = BUILD / "names.c"
    source.write_text("#include <Python.h>\n")
    found = re.findall(r"\(\(?dllimport\)?\)[^;(]*?\b(_?Py\w+)\s*[;(\[]", zig(*compile, "-E", "-P", source))
    assert len(found) > 500, found
    return sorted(set(found))


def check(target: Target, compile: list[object], names: list[str], extensions: list[Extension]) -> None:
    """Compile the headers, and all modules, which are linked to one library."""
    source = target.folder / "headers.c"
    source.write_text("#include <Python.h>\n" + "".join(f'#include "{path.name}"\n' for path in sorted(HEADERS.glob("*.h"))))
    zig(*compile, *STRICT, "-c", source, "-o", source.with_suffix(".o"))
    stub, library = target.folder / "stub.c", target.folder / f"python3{target.suffix}"
    export = "__declspec(dllexport) " if target.python else ""
    stub.write_text("".join(f"{export}void {name}(void) {{}}\n" for name in names))
    against = library.with_suffix(".lib") if target.python else library
    implement = [f"-Wl,--out-implib,{against}"] if target.python else []
    zig(*compile, "-w", "-fno-builtin", "-shared", stub, "-o", library, *implement)
    macros = [f"-D{name}={value}" for name, value in extensions[0].define_macros if name != "Py_LIMITED_API"]
    modules = [generated(extension.name.rpartition(".")[2]) for extension in extensions]
    lenient = ["-w", "-Werror=implicit-function-declaration", "-Werror=incompatible-pointer-types", "-Werror=int-conversion"]
    zig(*compile, *macros, *lenient, "-shared", *target.link, *modules, against, "-o", target.folder / f"modules{target.suffix}")
    print(f"{target.name}: our headers, and {len(modules)} modules compiled and linked", flush=True)


def generated(name: str) -> Path:
    """The C that Cython has made of a module for the portable build."""
    (found,) = ROOT.glob(f"build/release-portable/temp.*/src/flatrecord/_core/{name}.c")
    return found


def main() -> None:
    for target in TARGETS:  # and not what zig has kept of its C libraries
        shutil.rmtree(target.folder, ignore_errors=True)
    with patch.object(setuptools, "setup"):
        extensions: list[Extension] = runpy.run_path(str(ROOT / "setup.py"))["extensions"]
    compile = {target: prepare(target) for target in TARGETS}
    (marking,) = (target for target in TARGETS if target.python)
    names = names_of_python(compile[marking])
    for target in TARGETS:
        check(target, compile[target], names, extensions)


if __name__ == "__main__":
    main()
