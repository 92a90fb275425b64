"""A run in Flower's Ray simulation, started by `test_simulation`: ``python simulated.py MODULE``, where ArrayRecord comes from MODULE."""

import hashlib
import sys
from importlib import import_module

import numpy as np
from flwr.app import Array, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

ArrayRecord = import_module(sys.argv[1]).ArrayRecord
BACKEND = {
    "client_resources": {"num_cpus": 1, "num_gpus": 0},
    "init_args": {"num_cpus": 2, "object_store_memory": 200 << 20, "include_dashboard": False},
}
server, client = ServerApp(), ClientApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((300, 1000), np.float32), np.zeros(1000), np.zeros(1000), np.array(2.0)]
    strategy = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_available_nodes=2)
    result = strategy.start(grid, ArrayRecord(arrays), num_rounds=2)
    digest = hashlib.sha256(b"".join(array.numpy().tobytes() for array in result.arrays.values())).hexdigest()
    print("RESULT", digest, *(int(result.train_metrics_clientapp[i]["ours"]) for i in (1, 2)), flush=True)


@client.train()
def train(message: Message, context: Context) -> Message:
    record = message.content["arrays"]
    arrays = record.to_numpy_ndarrays(keep_input=False)
    for array in arrays:
        array *= 1 + context.node_config["partition-id"] / 7
    rounds = int(context.state["rounds"]["n"].numpy()) + 1 if "rounds" in context.state else 1
    context.state["rounds"] = ArrayRecord({"n": Array(np.array(rounds))})
    metrics = MetricRecord({"num-examples": rounds, "ours": float(type(record).__module__.startswith("flatrecord"))})
    return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=message)


run_simulation(server, client, num_supernodes=2, backend_config=BACKEND)
