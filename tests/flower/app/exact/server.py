"""The ServerApp: sends the model to every node, round after round, and compares the replies."""

import time

import flwr.common
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from .model import as_sent, kind, model, trained

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds; whatever is not as it should be ends the run as failed."""
    config = context.run_config
    while len(nodes := list(grid.get_node_ids())) < config["nodes"]:
        time.sleep(0.05)
    arrays = model(config["mib"], config["small"], config["ml_dtypes"])
    make = flwr.common.ParametersRecord if config["record"] == "ParametersRecord" else ArrayRecord
    for i in range(config["rounds"]):
        record = make({key: flwr.app.Array(array) for key, array in arrays.items()})
        assert kind(record) == config["server"], f"the ServerApp makes {kind(record)} records"
        content = RecordDict({"arrays": record, "config": ConfigRecord({"round": i})})
        began = time.perf_counter()
        replies = list(grid.send_and_receive([Message(content, node, "train") for node in nodes], timeout=config["timeout"]))
        print(f"ROUND {i} SECONDS {time.perf_counter() - began:.2f}")
        assert len(replies) == len(nodes), f"NO REPLY of {len(nodes) - len(replies)} nodes"
        for reply in replies:
            assert not reply.has_error(), f"ERROR REPLY: {reply.error.reason}"
            back = reply.content["arrays"]
            assert kind(back) == config["server"], f"the ServerApp receives {kind(back)} records"
            assert list(back) == list(arrays), "other keys"
            for key, array in as_sent(back).items():
                expected = trained(arrays[key])
                assert array.dtype == expected.dtype and array.shape == expected.shape, f"{key}: {array.dtype} {array.shape}"
                assert array.tobytes() == expected.tobytes(), f"{key}: other bits"
            assert reply.content["metrics"]["nodes"] == 1
        arrays = {key: trained(array) for key, array in arrays.items()}
    print(f"EXACT {config['rounds']} rounds, {len(nodes)} nodes, {len(arrays)} arrays")
