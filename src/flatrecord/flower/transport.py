"""This process sends and receives with our classes, whatever it makes its own records of."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from .allocator import give_back_large_blocks
from .arrays import Array, ArrayChunk
from .pushing import push_objects
from .records import ArrayRecord

UTILS = "flwr.supercore.inflatable.inflatable_utils"


def install() -> None:
    """Let Flower inflate what comes in as our classes, push a few chunks at a time, and give memory back.

    Takes the three entries of Flower's registry of classes, and the place of its function `push_objects`.
    """
    known = sys.modules.get(UTILS)
    if known is not None and not hasattr(known, "pull_and_inflate_object_from_tree"):
        return  # it is being imported right now: the hook comes again when it is whole
    utils = importlib.import_module(UTILS)
    utils.inflatable_class_registry.update({"Array": Array, "ArrayChunk": ArrayChunk, "ArrayRecord": ArrayRecord})
    theirs = utils.push_objects
    for module in _flower_modules():
        if vars(module).get("push_objects") is theirs:
            module.push_objects = push_objects  # type: ignore[attr-defined]
    give_back_large_blocks()


def _flower_modules() -> list[ModuleType]:
    return [module for name, module in list(sys.modules.items()) if name.startswith("flwr.") and module is not None]
