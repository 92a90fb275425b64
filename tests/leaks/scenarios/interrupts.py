"""Ctrl-C at any time while entries go in and out: what had been done by then is undone, and nothing stays."""

import random
import signal

import numpy as np
from _measuring import refused, report, turn

from flatrecord import ArrayRecord, ParametersRecord

HELD = np.arange(3.0)
LARGE = np.zeros(3 << 20, "u1")


class Stop(Exception):
    pass


def stop(number, frame):
    raise Stop


signal.signal(signal.SIGUSR1, stop)
signal.signal(signal.SIGALRM, stop)


armed: list[bool] = []  # not in a class, as each change to one leaves traces in the interpreter's cache of attributes


class Interrupting(np.ndarray):
    """Sends a signal to its own process where its shape is asked for."""

    @property
    def shape(self):
        if armed:
            armed.clear()
            signal.raise_signal(signal.SIGUSR1)
        return super().shape


WATCHED = np.zeros(3, [("x", "f4")]).view(Interrupting)


def made(entries):
    source = {str(i): np.arange(3.0) for i in range(entries)}
    source["0"], source["1"] = WATCHED, HELD
    return source


@turn
def while_entries_are_checked():
    for cls in (ParametersRecord, ArrayRecord):
        source = made(20)
        armed.append(True)
        with refused(Stop):
            cls(source)
        assert len(source) == 20


class Interrupted(dict):
    def __delitem__(self, key):
        if key == "2":
            signal.raise_signal(signal.SIGUSR1)
        super().__delitem__(key)


@turn
def while_entries_leave():
    source = Interrupted(made(6))
    with refused(Stop):
        ParametersRecord(source)
    assert len(source) == 6


chance = random.Random(1)


@turn(turns=1000)  # of 300 entries each, as the core looks for signals once in 256
def at_any_time():
    source = made(300)
    try:
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 3e-4))
        try:
            record = ParametersRecord(source)
            record.to_numpy_ndarrays(keep_input=False)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except Stop:
        pass


@turn(turns=300)  # of 3 MiB each, which several threads copy
def in_the_middle_of_a_copy():
    try:
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-5, 2e-3))
        try:
            ParametersRecord({"a": LARGE, "b": LARGE[::2], "c": LARGE}, keep_input=True)["a"].data
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except Stop:
        pass


report()
