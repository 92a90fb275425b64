"""Stock Flower and ours side by side: messages, what they are on the wire, and what comes out at the other end."""

import pickle
import subprocess
import sys
from collections.abc import Callable

from flwr.app import Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, no_object_id_recompute
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity

from flatrecord.flower.pulling import pull_and_inflate_object_from_tree
from flatrecord.flower.pushing import push_objects

TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 2, 3


def message(**records) -> Message:
    """A message with these records; the same records make the same message."""
    made = Message(RecordDict(records), 7, "train")
    made.metadata.created_at = 1.0
    return made


def sent(content: Message, push: Callable = push_objects, **options) -> dict[str, bytes]:
    """What goes over the wire: contents by object ids, in the order in which they are pushed."""
    contents: dict[str, bytes] = {}
    content.metadata.__dict__["_message_id"] = content.object_id
    with no_object_id_recompute():
        objects = get_all_nested_objects(content)
        push(objects, contents.__setitem__, **options)
    return contents


def received(content: Message, contents: dict[str, bytes]) -> RecordDict:
    """What the other end makes of it, in this process: with our classes, all at once."""
    return inflate_object_from_contents(content.object_id, dict(contents)).content


def pulled(content: Message, contents: dict[str, bytes], pull: Callable | None = None, **options) -> RecordDict:
    """What the other end makes of it, in this process, pulling one object after the other."""
    confirmed: list[str] = []
    found = pull_and_inflate_object_from_tree(
        get_object_tree(content), pull or contents.__getitem__, confirmed.append, return_type=Message, **options
    )
    assert confirmed == [content.object_id]
    return found.content


STOCK = """
import pickle, sys
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
object_id, contents = pickle.load(sys.stdin.buffer)
found = inflate_object_from_contents(object_id, contents).content
assert "flatrecord" not in sys.modules
pickle.dump({name: {k: (a.dtype, a.shape, a.stype, a.data) for k, a in r.items()} for name, r in found.items()}, sys.stdout.buffer)
"""


def received_by_stock(content: Message, contents: dict[str, bytes]) -> dict[str, dict[str, tuple]]:
    """What a process with Flower alone makes of it: the four fields of each Array."""
    given = pickle.dumps((content.object_id, contents))
    done = subprocess.run([sys.executable, "-c", STOCK], input=given, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    return pickle.loads(done.stdout)
