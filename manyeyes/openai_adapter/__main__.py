"""`python -m manyeyes.openai_adapter`: speaks OpenAI's API for the endpoints in the state folder's adapter.yaml, ends on SIGTERM."""

import asyncio
import contextlib
import signal
import sys

import structlog
import uvloop
from starlette.types import Receive, Scope, Send

from manyeyes.observability import structlog_setup
from manyeyes.openai_adapter.config import AdapterSettings, ConfigReader
from manyeyes.openai_adapter.listeners import EndpointListeners, serve

LOOK_EVERY_S = 0.5


async def live(scope: Scope, receive: Receive, send: Send) -> None:
    """For the container's health check: 200 while the process runs."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": b'{"status":"ok"}'})


async def run(settings: AdapterSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    own, own_task = serve(live, settings.host, settings.port)
    reader, ports, book, complete = (
        ConfigReader(settings.state),
        EndpointListeners(settings.host, settings.secrets),
        None,
        True,
    )
    structlog.get_logger().info("adapter_started", port=settings.port)
    while not stop.is_set():
        try:
            changed = reader.changed()
            book = changed or book
            if book and (changed or not complete):
                complete = ports.follow(book)
        except Exception:
            # A bug. The ports that are open go on.
            complete = True
            structlog.get_logger().exception("book_not_followed")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), LOOK_EVERY_S)
    own.should_exit = True
    await asyncio.gather(ports.close(), own_task)


def main() -> int:
    structlog_setup.configure_structlog("adapter")
    uvloop.run(run(AdapterSettings()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
