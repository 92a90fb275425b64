"""Written by ``flatrecord flower enable``; ``flatrecord flower disable`` removes it, and the .pth file beside it.

Python runs this at every start of the environment. All it does is wait: when Flower's modules are imported,
flatrecord lets them use its records. ``FLATRECORD_FLOWER=0`` in the environment of a process keeps it out.
"""

import os
import sys
from _thread import get_ident

# Module of Flower's -> what is to be done once it is there.
AFTER = {
    "flwr.app": "names",
    "flwr.supercore.inflatable.inflatable_utils": "transport",
    "flwr.supernode.runtime.run_clientapp": "transport",
    "flwr.superlink.grid.http_grid": "transport",
}


TYPE_CHECKING = False  # what typing calls so, whose import would cost every process of the environment a few milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any


class Finder:
    """Finds nothing itself; sees to it that something is done after some modules have been imported."""

    asking: "set[int]" = set()  # noqa: RUF012 (ClassVar is typing's)  threads: another finder may ask us in its turn
    warned = False

    @classmethod
    def find_spec(cls, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None) -> "ModuleSpec | None":
        """What the other finders have found, with a loader that tells us."""
        if name not in AFTER or get_ident() in cls.asking:
            return None
        cls.asking.add(get_ident())
        try:
            for finder in sys.meta_path:
                find: Callable[..., ModuleSpec | None] | None = None if finder is cls else getattr(finder, "find_spec", None)
                spec = find and find(name, path, target)
                if spec:
                    if hasattr(spec.loader, "exec_module"):
                        cls.follow(name, spec.loader)
                    return spec
        finally:
            cls.asking.discard(get_ident())
        return None

    @classmethod
    def follow(cls, name: str, loader: "Any") -> None:
        """Have `loader` call `act` once it has executed the module."""
        execute = loader.exec_module

        def exec_module(module: "ModuleType") -> None:
            execute(module)
            cls.act(name)

        loader.exec_module = exec_module

    @classmethod
    def act(cls, name: str) -> None:
        """Do what is to be done after the import of a module."""
        try:
            from flatrecord import hook

            hook.act(AFTER[name])
        except Exception as error:  # Flower goes on without us, whatever is wrong
            if not cls.warned:
                cls.warned = True
                print(f"{__file__}: flatrecord leaves Flower as it is: {error}", file=sys.stderr)


if os.environ.get("FLATRECORD_FLOWER", "1") != "0":
    sys.meta_path.insert(0, Finder)
