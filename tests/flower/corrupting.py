"""A wire that flips a bit: put into a ClientApp's environment by `test_processes`, run when its processes start.

The environment variable ``CORRUPT`` says of which request the bodies are to be changed: ``push-object`` or ``pull-object``.
"""

import os
import sys

if any(word.endswith("flwr-clientapp") for word in sys.orig_argv):
    import httpx

    def flipped(body: bytes) -> bytes:
        if len(body) < 1 << 20:  # no chunk of a large array
            return body
        middle = len(body) // 2
        return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]

    def handle_request(self, request, handle_request=httpx.HTTPTransport.handle_request):
        concerned = request.url.path.endswith(os.environ["CORRUPT"])
        if concerned and "push" in os.environ["CORRUPT"]:
            request.stream = httpx.ByteStream(flipped(request.read()))
        response = handle_request(self, request)
        if not concerned or "push" in os.environ["CORRUPT"]:
            return response
        return httpx.Response(response.status_code, headers=response.headers, content=flipped(response.read()))

    httpx.HTTPTransport.handle_request = handle_request
