"""Written by ``flatrecord flower enable``; ``flatrecord flower disable`` removes it, and the .pth file beside it.

Python runs this at every start of the environment. All it does is wait: when Flower's modules are imported,
flatrecord lets them use its records. ``FLATRECORD_FLOWER=0`` in the environment of a process keeps it out.
"""

import os
import sys

# Module of Flower's -> what is to be done once it is there.
AFTER = {
    "flwr.app": "names",
    "flwr.supercore.inflatable.inflatable_utils": "transport",
    "flwr.supernode.runtime.run_clientapp": "transport",
    "flwr.superlink.grid.http_grid": "transport",
}


class Finder:
    """Finds nothing itself; sees to it that something is done after some modules have been imported."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name not in AFTER:
            return None
        for finder in sys.meta_path:
            spec = None if finder is cls else finder.find_spec(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    cls.follow(name, spec.loader)
                return spec
        return None

    @classmethod
    def follow(cls, name, loader):
        execute = loader.exec_module

        def exec_module(module):
            execute(module)
            cls.act(name)

        loader.exec_module = exec_module

    @classmethod
    def act(cls, name):
        if cls not in sys.meta_path:
            return
        try:
            from flatrecord import hook

            hook.act(AFTER[name])
        except Exception as error:  # Flower goes on without us, whatever is wrong
            import warnings

            sys.meta_path.remove(cls)
            warnings.warn(f"flatrecord leaves Flower as it is: {error}", RuntimeWarning, stacklevel=2)


if os.environ.get("FLATRECORD_FLOWER", "1") != "0":
    sys.meta_path.insert(0, Finder)
