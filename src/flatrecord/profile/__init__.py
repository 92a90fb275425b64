"""The memory profiler behind ``flatrecord profile``: how many models a program holds at its peak, and which lines do.

`phase` names a part of a program for it.
"""

from .phases import phase

__all__ = ["phase"]
