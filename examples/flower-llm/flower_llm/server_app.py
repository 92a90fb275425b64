"""The server's part: FedAvg, and the loss on text that no node has."""

import json
from functools import partial

import torch
from flwr.app import ArrayRecord, Context, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from .memory import peak_beside
from .model import Transformer, evaluate, text_of
from .records import load, pack

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train for some rounds, and print the losses as JSON."""
    config = context.run_config
    records, text = config["records"], text_of(-1, 0)
    make = partial(Transformer, config["width"], config["layers"])

    def evaluate_model(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        return MetricRecord({"loss": evaluate(load(records, arrays, make, keep=True), text)})

    strategy = FedAvg(fraction_evaluate=0.0, train_metrics_aggr_fn=losses_by_node)
    torch.manual_seed(0)
    result = strategy.start(grid, pack(records, make()), config["rounds"], evaluate_fn=evaluate_model)
    evaluated = [metrics["loss"] for metrics in result.evaluate_metrics_serverapp.values()]
    trained = [metrics["losses"] for metrics in result.train_metrics_clientapp.values()]
    with torch.device("meta"):
        print("ServerApp:", peak_beside(make()))
    print("losses:", json.dumps({"evaluated": evaluated, "trained": trained}))


def losses_by_node(replies: list[RecordDict], weighted_by: str) -> MetricRecord:
    """The nodes' losses side by side, instead of their mean."""
    return MetricRecord({"losses": [m["loss"] for m in sorted((r["metrics"] for r in replies), key=lambda m: m["node"])]})
