"""Every path of the package, and who goes along it: what ``python -m profiling compare`` compares."""

from .contender import Contender, Path, Place, Size
from .files import LOAD, MAPPED, SAVE
from .memory import SNAPSHOT, TAKE, TO_ARRAYS
from .pipe import PIPE
from .round import ROUND
from .wire import WIRE_IN, WIRE_OUT

PATHS: dict[str, Path] = {
    "take": TAKE,
    "snapshot": SNAPSHOT,
    "to-arrays": TO_ARRAYS,
    "save": SAVE,
    "load": LOAD,
    "mapped": MAPPED,
    "pipe": PIPE,
    "wire-out": WIRE_OUT,
    "wire-in": WIRE_IN,
    "round": ROUND,
}

__all__ = ["PATHS", "Contender", "Path", "Place", "Size"]
