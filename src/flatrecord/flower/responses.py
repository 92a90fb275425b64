"""HTTP responses that are freed once they have been read."""

from __future__ import annotations

import httpx
from flwr.supercore.protobuf import client as _client

_theirs = _client.ProtobufClient._send


def send(self: _client.ProtobufClient, context: _client.ProtobufRequestContext, *, stream: bool = False) -> httpx.Response:
    """Flower's `_send`; cuts the tie between a response and its stream where the response has been read.

    httpx has the two refer to each other (`BoundSyncStream` in httpx/_client.py), so that the content of a response, and of
    the request before it, is freed only when the garbage collector comes by: some hundred MiB later.
    """
    response = _theirs(self, context, stream=stream)
    if not stream:
        response.stream = httpx.ByteStream(b"")
    return response
