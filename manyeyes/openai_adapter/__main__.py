"""`python -m manyeyes.openai_adapter`: serves OpenAI's API for the endpoints in the state folder's adapter.yaml, until
SIGTERM."""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog
import uvicorn
import uvloop
from starlette.types import ASGIApp, Receive, Scope, Send

from manyeyes.observability import structlog_setup
from manyeyes.openai_adapter.app import EndpointApp
from manyeyes.openai_adapter.config import AdapterConfig, AdapterSettings, ConfigReader

log = structlog.get_logger()
KEEP_ALIVE_S = 75
"""Longer than nginx's 60 s, so that nginx closes idle connections and not the adapter: a reused connection is never
reset."""
GRACE_S = 20


class EndpointServer(uvicorn.Server):
    """A server without signal handlers, because several servers run in one process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass
class OpenListener:
    app: EndpointApp
    server: EndpointServer
    task: asyncio.Task[None]


class EndpointListeners:
    """The open listeners, one per engine."""

    def __init__(self, host: str, secrets: Path) -> None:
        self.host = host
        self.secrets = secrets
        self.open: dict[int, OpenListener] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def follow(self, book: AdapterConfig) -> bool:
        """Opens and closes ports so that they match the configuration.

        False if another process uses a port: try again.
        """
        engines = {engine.port: engine for engine in book.engines}
        for port in [port for port in self.open if port not in engines]:
            self._close(port)
        complete = True
        for port, engine in engines.items():
            if port in self.open:
                self.open[port].app.take(book, engine)
                continue
            app = EndpointApp(book, engine, self.secrets)
            try:
                server, task = serve(app, self.host, port)
            except OSError as error:
                log.error("port_unusable", engine=engine.name, port=port, reason=str(error))
                complete = False
                continue
            self.open[port] = OpenListener(app, server, task)
            log.info("endpoint_started", engine=engine.name, port=port, endpoint=engine.endpoint.url.partition("?")[0])
        return complete

    async def close(self) -> None:
        """Closes all listeners. Running answers may finish within GRACE_S."""
        for port in list(self.open):
            self._close(port)
        await asyncio.gather(*list(self._closing), return_exceptions=True)

    def _close(self, port: int) -> None:
        listener = self.open.pop(port)
        listener.server.should_exit = True
        closing = asyncio.create_task(_end(listener))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        log.info("endpoint_stopped", engine=listener.app.engine.name, port=port)


async def _end(listener: OpenListener) -> None:
    """Waits for the running requests, then closes the connections to the endpoint."""
    await asyncio.gather(listener.task, return_exceptions=True)
    await listener.app.close()


def serve(app: ASGIApp, host: str, port: int) -> tuple[EndpointServer, asyncio.Task[None]]:
    """Starts a server. Raises OSError if the port is not available."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(2048)
    except OSError:
        listening.close()
        raise
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )
    server = EndpointServer(config)
    return server, asyncio.create_task(server.serve(sockets=[listening]))


POLL_INTERVAL_S = 0.5


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
            # A bug. Open ports continue to work.
            complete = True
            structlog.get_logger().exception("book_not_followed")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), POLL_INTERVAL_S)
    own.should_exit = True
    await asyncio.gather(ports.close(), own_task)


def main() -> int:
    structlog_setup.configure_structlog("adapter")
    uvloop.run(run(AdapterSettings()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
