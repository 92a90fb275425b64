"""Real Flower on compiled storage: Flower's `Array`, `ArrayRecord` and `ParametersRecord`, without the copies.

What is imported from here is accepted wherever Flower accepts its own: in a ``RecordDict``, a ``Message``,
``Context.state``, by the strategies of a ServerApp and in the simulation. The object ids and the bytes on the
wire are the same, so that a stock peer notices nothing.

Importing it also lets this process send and receive so. A ClientApp's process has received its message before
it imports the app: ``flatrecord flower enable`` reaches that, too.
"""

import importlib
import sys

from .. import hook
from ..hook.versions import require

require()

from . import transport
from .arrays import Array
from .chunks import ArrayChunk
from .records import ArrayRecord, ParametersRecord, from_flower, to_flower

transport.install()

__all__ = ["Array", "ArrayChunk", "ArrayRecord", "ParametersRecord", "from_flower", "to_flower"]

if hook.MODULE not in sys.modules:  # the hook of the environment, which does the same and more
    importlib.import_module("flatrecord.hook.startup")
hook.catch_up()
