"""Messages over a wire in this process: pushed and pulled as by real apps, in small and large chunks, consumed, corrupted, refused."""

import numpy as np
from _measuring import refused, report, turn
from flower.peer import message, pulled, received, sent
from flwr.supercore.inflatable.inflatable_utils import ObjectUnavailableError

from flatrecord.flower import ArrayRecord
from flatrecord.flower.pushing import push_objects

HELD = np.arange(6.0)
LARGE = np.zeros(6 << 20, "u1")  # two chunks
# A turn starts some ten threads to push, and as many to pull.
TURNS, LARGE_TURNS = 100, 30


@turn(turns=TURNS)
def pushed_and_pulled():
    whole = message(arrays=ArrayRecord([HELD, np.zeros((0, 3), "f4")]))
    contents = sent(whole)
    assert pulled(whole, contents) == received(whole, contents)


@turn(turns=LARGE_TURNS)
def large():
    whole = message(arrays=ArrayRecord([LARGE, LARGE[1:]], copy=False))
    contents = sent(whole)
    assert len(pulled(whole, contents)["arrays"]) == 2


@turn(turns=TURNS)
def consumed():
    record = ArrayRecord([HELD, np.arange(3.0)])
    record.consumable = True
    sent(message(arrays=record))
    assert not record


def broken(object_id, content):
    raise OSError("the wire is cut")


@turn(turns=TURNS)
def a_wire_that_is_cut():
    whole = message(arrays=ArrayRecord([HELD]))
    with refused(OSError, "cut"):
        sent(whole, push=lambda objects, function: push_objects(objects, broken))
    contents = sent(whole)

    def pull(object_id):
        raise OSError("the wire is cut")

    with refused(OSError, "cut"):
        pulled(whole, contents, pull)


@turn(turns=TURNS)
def a_wire_that_flips_a_bit():
    whole = message(arrays=ArrayRecord([HELD]))
    contents = {name: content[:-1] + bytes([content[-1] ^ 1]) for name, content in sent(whole).items()}
    with refused(ValueError, "corrupted on its way"):
        pulled(whole, contents)


@turn(turns=TURNS)
def memory_that_was_written_to():
    array = np.arange(6.0)
    whole = message(arrays=ArrayRecord([array], copy=False))
    whole.object_id
    array[0] = 7

    def refuse(object_id, content):
        raise ValueError("not what it says")

    with refused(ValueError):
        sent(whole, push=lambda objects, function: push_objects(objects, refuse))


@turn(turns=TURNS)
def what_never_comes():
    whole = message(arrays=ArrayRecord([HELD]))

    def pull(object_id):
        raise ObjectUnavailableError("later")

    with refused(Exception, "limit"):
        pulled(whole, sent(whole), pull, max_tries_per_object=1)


report()
