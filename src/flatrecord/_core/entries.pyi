from collections.abc import Callable
from typing import TypeVar

from typing_extensions import disjoint_base

from .array import Array

_T = TypeVar("_T")

@disjoint_base
class Entries: ...

def pass_out(
    record: Entries,
    work: Callable[[dict[str, Array | None]], _T],
    restore: Callable[[dict[str, Array | None]], object],
) -> _T: ...
