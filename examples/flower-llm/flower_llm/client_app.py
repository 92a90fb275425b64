"""A node's part: train on its own text."""

import atexit
from functools import partial

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from .memory import peak_beside
from .model import Transformer, text_of, train
from .records import load, pack

app = ClientApp()


@app.train()
def train_on_node(message: Message, context: Context) -> Message:
    """Train the model of a round, and send it back."""
    config, node = context.run_config, int(context.node_config["partition-id"])
    text = text_of(node, int(context.node_config["num-partitions"]))
    make = partial(Transformer, config["width"], config["layers"])
    model = load(config["records"], message.content["arrays"], make)
    atexit.register(lambda: print(f"ClientApp of node {node}:", peak_beside(model)))  # when the reply has been sent
    server_round = message.content["config"]["server-round"]
    learning_rate = config["learning-rate"] / config["width"]
    loss = train(model, text, config["steps"], config["batch"], learning_rate, seed=server_round)
    metrics = MetricRecord({"node": node, "loss": loss, "num-examples": len(text)})
    return Message(RecordDict({"arrays": pack(config["records"], model), "metrics": metrics}), reply_to=message)
