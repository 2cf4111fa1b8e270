"""Refuses a request without its cost to the next one on the same connection.

An answer that comes before the request's body has arrived makes nginx close the connection after it, and the answer does not say so:
the client's next request on it may then fail.
"""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

READ_BYTES = 1 << 20
"""Of a body that nobody wants; a longer one costs its sender the connection."""


async def refuse(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Sends the response once the request's body, or the first MiB of it, has been read and dropped."""
    read, more = 0, scope["type"] == "http"
    while more and read < READ_BYTES:
        message = await receive()
        if message["type"] != "http.request":
            return  # the client went away
        read += len(message.get("body", b""))
        more = message.get("more_body", False)
    await response(scope, receive, send)
