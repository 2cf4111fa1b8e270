"""A listening port for every engine in the book: opened, given another definition, or closed as the book says."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog
import uvicorn
from starlette.types import ASGIApp

from manyeyes.openai_adapter.app import EndpointApp
from manyeyes.openai_adapter.config import AdapterConfig

log = structlog.get_logger()
KEEP_ALIVE_S = 75
"""Above nginx's 60 s, so that nginx, not the adapter, closes idle connections: no reset on a reused one."""
GRACE_S = 20


class EndpointServer(uvicorn.Server):
    """Several run in one process, so none takes the process's signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass
class OpenListener:
    speaker: EndpointApp
    server: EndpointServer
    task: asyncio.Task[None]


class EndpointListeners:
    """All that are open."""

    def __init__(self, host: str, secrets: Path) -> None:
        self.host = host
        self.secrets = secrets
        self.open: dict[int, OpenListener] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def follow(self, book: AdapterConfig) -> bool:
        """Makes the ports those of the book. False when one is taken by another process: to be tried again."""
        wanted = {spoken.port: spoken for spoken in book.engines}
        for port in [port for port in self.open if port not in wanted]:
            self._close(port)
        complete = True
        for port, spoken in wanted.items():
            if port in self.open:
                self.open[port].speaker.take(book, spoken)
                continue
            speaker = EndpointApp(book, spoken, self.secrets)
            try:
                server, task = serve(speaker, self.host, port)
            except OSError as error:
                log.error("port_unusable", engine=spoken.name, port=port, reason=str(error))
                complete = False
                continue
            self.open[port] = OpenListener(speaker, server, task)
            log.info("speaks_for", engine=spoken.name, port=port, endpoint=spoken.endpoint.url.partition("?")[0])
        return complete

    async def close(self) -> None:
        """Answers that run may end within GRACE_S."""
        for port in list(self.open):
            self._close(port)
        await asyncio.gather(*list(self._closing), return_exceptions=True)

    def _close(self, port: int) -> None:
        one = self.open.pop(port)
        one.server.should_exit = True
        closing = asyncio.create_task(_end(one))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        log.info("speaks_no_more_for", engine=one.speaker.spoken.name, port=port)


async def _end(one: OpenListener) -> None:
    """Its connections to the endpoint outlast its requests."""
    await asyncio.gather(one.task, return_exceptions=True)
    await one.speaker.close()


def serve(app: ASGIApp, host: str, port: int) -> tuple[EndpointServer, asyncio.Task[None]]:
    """Raises OSError when the port cannot be had."""
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
