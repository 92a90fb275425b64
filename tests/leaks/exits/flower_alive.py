"""Flower's records, their chunks, and an error from the middle of a push are alive."""

import flwr.app
import numpy as np

from flatrecord.flower import ArrayRecord, from_flower
from flatrecord.flower.pushing import push_objects

record = ArrayRecord([np.arange(6.0), np.zeros(6 << 20, "u1")])
chunks = record["1"].slice_array()
object_id = record.object_id
core = from_flower(record)
content = flwr.app.RecordDict({"arrays": record})


def refuse(object_id, content):
    raise OSError("the wire is cut")


try:
    push_objects(dict(chunks), refuse)
except OSError as error:
    kept = error
print("done")
