"""The ClientApp: one to every element; or what goes wrong on purpose."""

import os
import threading
import time

import flwr.common
import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from .model import as_sent, kind, of_name, trained

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Reply with the trained arrays."""
    config = context.run_config
    record = message.content["arrays"]
    assert kind(record) == config["client"], f"the ClientApp receives {kind(record)} records"
    if config["fault"] == "raise":
        raise ZeroDivisionError("the app raises")
    arrays = {key: trained(array) for key, array in as_sent(record).items()}
    # State goes from round to round as one protobuf message.
    context.state["rounds"] = ArrayRecord({"count": Array(arrays["steps"])})
    if config["record"] == "ParametersRecord":
        reply = flwr.common.ParametersRecord({key: Array(array) for key, array in arrays.items()})
    elif config["client"] == "flat":
        reply = ArrayRecord(arrays, copy=False)
    else:
        reply = ArrayRecord({key: Array(array) for key, array in arrays.items()})
    assert kind(reply) == config["client"], f"the ClientApp makes {kind(reply)} records"
    if config["fault"] == "write":
        threading.Thread(target=keep_training, args=(arrays["layer2.weight"],), daemon=True).start()
    if config["client"] == "flat":
        threading.Thread(target=report, args=(reply, arrays), daemon=True).start()
    print("TRAINED", flush=True)
    return Message(RecordDict({"arrays": reply, "metrics": MetricRecord({"nodes": 1})}), reply_to=message)


def keep_training(array) -> None:
    """Write to the model while it is being sent."""
    while True:
        array += 1
        time.sleep(0.001)


def report(reply: ArrayRecord, arrays: dict) -> None:
    """Say again and again whether the reply is what it was: a process that is made to end may not come to say it then."""
    while True:
        shown = {key: of_name(array.numpy(copy=False), array.dtype) for key, array in reply.items()}
        whole = list(shown) == list(arrays) and all(
            np.shares_memory(shown[key], array) or shown[key].tobytes() == array.tobytes() for key, array in arrays.items()
        )
        os.write(1, f"THE RECORD IS {'WHOLE' if whole else 'BROKEN'}: {len(reply)} entries\n".encode())
        time.sleep(0.1)
