"""What ``flatrecord flower enable`` writes into an environment, so that every Flower process of it uses our records.

A ClientApp's process has received its message before it imports the app, so that an import in the app comes too
late. Python runs ``.pth`` files when it starts: ours puts a finder before the others, which waits for Flower's modules
and changes nothing until they come. It needs no module of flatrecord, or of anybody, before that.
"""

from __future__ import annotations

import sys
import sysconfig
from compileall import compile_file
from contextlib import suppress
from importlib.util import cache_from_source
from pathlib import Path

from . import versions

MODULE = "_flatrecord_flower"
PTH = f"import {MODULE}\n"
STARTUP = Path(__file__).parent / "startup.py"  # read, not imported: it acts when it is imported


def files() -> dict[Path, str]:
    """What `enable` writes: paths in this environment's site-packages, and their contents."""
    folder = Path(sysconfig.get_path("purelib"))
    return {folder / f"{MODULE}.py": STARTUP.read_text(encoding="utf-8"), folder / "flatrecord_flower.pth": PTH}


def is_enabled() -> bool:
    """Whether this environment has the hook."""
    return all(path.exists() for path in files())


def enable() -> None:
    """Write the hook, and the bytecode of its module; an older one is replaced.

    Raises
    ------
    ImportError
        If the environment has no Flower, or one that we do not know. Nothing is written then.
    OSError
        If its site-packages cannot be written to.
    """
    versions.require()
    for path, text in files().items():  # the module before the line that imports it
        path.write_text(text, encoding="utf-8")
        if path.suffix == ".py":
            compile_file(path, quiet=1)  # as pip does: or it would be compiled at every start, where bytecode is not written


def disable() -> list[Path]:
    """Remove the hook, whichever of it is there.

    Returns
    -------
    list of Path
        What was removed.

    Raises
    ------
    OSError
        If a file cannot be removed.
    """
    removed = []
    for path in reversed(files()):  # the line that imports the module before the module
        compiled = [Path(cache_from_source(str(path)))] if path.suffix == ".py" else []
        for found in (path, *compiled):
            if found.exists():
                found.unlink()
                removed.append(found)
        for found in compiled:
            with suppress(OSError):
                found.parent.rmdir()  # if it was made for this
    return removed


_waiting: list[str] = []


def act(what: str) -> None:
    """Called when a module of Flower's has been imported: ``names`` or ``transport`` is to be ours from now on."""
    being_imported = sys.modules.get("flatrecord.flower")
    if being_imported is not None and not hasattr(being_imported, "__all__"):
        _waiting.append(what)  # it imports Flower's modules itself, and is not ready for this
        return
    from ..flower import names, transport

    {"names": names.take_over, "transport": transport.install}[what]()


def catch_up() -> None:
    """Do what had to wait until ``flatrecord.flower`` was there."""
    while _waiting:
        act(_waiting.pop(0))
