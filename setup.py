"""Build switches and the list of extensions; everything else stands in pyproject.toml."""

import gzip
import os
import sysconfig
import tarfile

import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

MODULES = (
    *("workers", "copying", "strided", "buffer", "foreign", "holders", "ownership", "npy", "views", "segments", "array"),
    *("parts", "errors", "entries", "release", "absorb", "ties", "record"),
)
HEADERS = ("platform", "threads", "workers", "strided", "blocks")


def switched_on(name: str) -> bool:
    """Whether the environment turns the build switch ``FLATRECORD_<name>`` on."""
    return os.environ.get(f"FLATRECORD_{name}", "0") not in ("", "0")


debug, sanitize, coverage, fuzz, portable = map(switched_on, ("DEBUG", "SANITIZE", "COVERAGE", "FUZZ", "PORTABLE"))
variant = "fuzz" if fuzz else "sanitize" if sanitize else "coverage" if coverage else "debug" if debug else "release"
variant = f"{variant}-portable" if portable else variant
checked = debug or sanitize or coverage or fuzz
# abi3 cannot be loaded by a free-threaded interpreter, and line tracing needs the full API.
abi3 = not coverage and not sysconfig.get_config_var("Py_GIL_DISABLED")

directives = {
    "language_level": "3",
    "freethreading_compatible": True,
    "binding": False,  # plain method descriptors: what CPython calls fastest
    "embedsignature": True,
    "embedsignature.format": "clinic",  # so that inspect.signature still works
    "autotestdict": False,  # stubtest reads the module as it is
    "boundscheck": checked,
    "initializedcheck": checked,
    "nonecheck": checked,
    "linetrace": coverage,
}
macros = [("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"), ("NPY_TARGET_VERSION", "NPY_2_0_API_VERSION")]
compile_args, link_args = ["-O2", "-g0", "-fvisibility=hidden"], ["-Wl,-s"]
if abi3:
    macros.append(("Py_LIMITED_API", "0x030B0000"))
if not checked:
    macros.append(("CYTHON_WITHOUT_ASSERTIONS", "1"))
else:
    compile_args, link_args = ["-O1", "-g", "-fno-omit-frame-pointer", "-UNDEBUG"], []
if sanitize:
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    compile_args, link_args = compile_args + flags, link_args + flags
if fuzz:
    # Not linked with gcc's sanitizers: atheris brings clang's, with libFuzzer inside, which are preloaded.
    compile_args += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fsanitize-coverage=trace-pc,trace-cmp"]
if coverage:
    macros += [("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")]
if portable:
    macros.append(("FLATRECORD_PORTABLE", "1"))  # what a system gets that has neither POSIX nor a compiler like gcc
if os.name == "nt":
    compile_args, link_args = [], []  # what setuptools gives MSVC is right: /O2, no symbols; nothing of ours needs its /std:c11
else:
    compile_args, link_args = [*compile_args, "-pthread"], [*link_args, "-pthread"]
if sysconfig.get_platform().startswith("macosx"):
    link_args = ["-Wl,-x" if a == "-Wl,-s" else a for a in link_args]  # its linker has this word for it


class BuildExt(build_ext):  # type: ignore[misc]  # setuptools has no types
    """`build_ext` that leaves the interpreter's own RUNPATH and library path out of the wheel."""

    def build_extensions(self) -> None:
        linker = getattr(self.compiler, "linker_so", None)
        if linker:
            self.compiler.linker_so = [a for a in linker if not a.startswith(("-Wl,-rpath", "-L"))]
        super().build_extensions()


class SDist(sdist):  # type: ignore[misc]  # setuptools has no types
    """`sdist` whose archive depends on nothing but the files and SOURCE_DATE_EPOCH, where that is set."""

    def make_archive(self, base_name: str, format: str, *args: object, **options: object) -> str:
        path: str = super().make_archive(base_name, format, *args, **options)
        if "SOURCE_DATE_EPOCH" in os.environ:
            made_again(path, int(os.environ["SOURCE_DATE_EPOCH"]))
        return path


def made_again(path: str, time: int) -> None:
    """Write the ``.tar.gz`` at `path` anew: in the order of the names, without owners, everything as old as `time` (seconds since 1970)."""
    with tarfile.open(path) as archive:
        members = [(member, archive.extractfile(member) if member.isfile() else None) for member in archive]
        with (
            open(path + ".new", "wb") as file,
            gzip.GzipFile("", "wb", mtime=time, fileobj=file) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as again,
        ):
            for member, content in sorted(members, key=lambda pair: pair[0].name):
                member.uid = member.gid = 0
                member.uname = member.gname = ""
                member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
                member.mtime, member.pax_headers = time, {}
                again.addfile(member, content)
    os.replace(path + ".new", path)


extensions = [
    Extension(
        f"flatrecord._core.{name}",
        [f"src/flatrecord/_core/{name}.pyx", *(["fuzz/coverage.c"] if fuzz else [])],
        depends=[f"src/flatrecord/_core/{other}.pxd" for other in MODULES] + [f"src/flatrecord/_core/{header}.h" for header in HEADERS],
        include_dirs=[numpy.get_include(), "src/flatrecord/_core"],
        define_macros=macros,
        extra_compile_args=compile_args,
        extra_link_args=link_args,
        py_limited_api=abi3,
    )
    for name in MODULES
]
for extension in extensions:
    # In the temporary folder C keeps out of src/ and the sdist; Cython.Coverage looks for it beside the .pyx.
    extension.cython_c_in_temp = not coverage
    extension.cython_directives = directives

setup(
    ext_modules=extensions,
    cmdclass={"build_ext": BuildExt, "sdist": SDist},
    options={
        "build": {"build_base": f"build/{variant}"},
        "bdist_wheel": {"py_limited_api": "cp311"} if abi3 else {},
    },
)
