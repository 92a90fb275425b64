"""A process sends and receives with our classes, whatever it makes its own records of."""

from __future__ import annotations

import sys
from collections.abc import Callable

from flwr.supercore.protobuf.client import ProtobufClient

from .arrays import Array
from .chunks import ArrayChunk
from .pulling import pull_and_inflate_object_from_tree, pull_objects
from .pushing import push_objects
from .records import ArrayRecord
from .responses import send

REGISTRY = "flwr.supercore.inflatable.inflatable_utils"
# Not SuperLink and SuperNode, which pass on what they do not inflate.
PLACES: dict[str, tuple[Callable[..., object], ...]] = {
    "flwr.supernode.runtime.run_clientapp": (pull_and_inflate_object_from_tree, push_objects),
    "flwr.superlink.grid.http_grid": (pull_objects, push_objects),
}


def install() -> None:
    """Let Flower inflate what comes in as our classes, and call our functions in ClientApps and ServerApps.

    Changes three entries of Flower's registry of classes, two names in each of the two modules above, as far as they
    are there, and a method of Flower's HTTP client. Doing so again changes nothing.
    """
    ProtobufClient._send = send  # type: ignore[method-assign]  # taking its place is what this is for
    registry = getattr(sys.modules.get(REGISTRY), "inflatable_class_registry", {})
    registry.update({"Array": Array, "ArrayChunk": ArrayChunk, "ArrayRecord": ArrayRecord})
    for name, functions in PLACES.items():
        for function in functions:
            if hasattr(sys.modules.get(name), function.__name__):
                setattr(sys.modules[name], function.__name__, function)
