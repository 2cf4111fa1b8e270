"""An engine, or an endpoint elsewhere, that does what a test tells it, and remembers what it was asked."""

import contextlib
import io
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Asked:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


Behaviour = Callable[["Handler", Asked], None]


@dataclass
class Endpoint:
    """Answers /health and the warm-up; what else comes gets `does`."""

    port: int
    does: Behaviour
    asked: list[Asked] = field(default_factory=list)
    health: int = 200
    """The status of /health and all other GET requests."""

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    endpoint: Endpoint

    def do_GET(self) -> None:
        self.answer(self.endpoint.health, b"{}")

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding"):
            raise AssertionError("the gateway sends bodies with their length")
        asked = Asked(self.path, dict(self.headers), self.rfile.read(int(self.headers["Content-Length"])))
        if asked.headers.get("X-Request-Id") == "manyeyes-warm-up":
            return answers()(self, asked)
        self.endpoint.asked.append(asked)
        return self.endpoint.does(self, asked)

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def drop(self) -> None:
        """Ends the connection as a process does that dies."""
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            self.connection.close()
        self.close_connection = True
        self.wfile = io.BytesIO()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def answers(status: int = 200, **fields: Any) -> Behaviour:
    """An answer that names the model it was asked for."""

    def does(handler: Handler, asked: Asked) -> None:
        message = {"role": "assistant", "content": "from elsewhere"}
        body = {"model": asked.json.get("model"), "choices": [{"message": message, "finish_reason": "stop"}]} | fields
        handler.answer(status, json.dumps(body).encode())

    return does


def dies(handler: Handler, asked: Asked) -> None:
    """Reads the request and is gone before a byte is answered."""
    handler.drop()


class Server(ThreadingHTTPServer):
    """One that ends its connections with itself, as a process does."""

    daemon_threads = True
    open: list[socket.socket]

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        self.open.append(connection)
        return connection, address

    def server_close(self) -> None:
        super().server_close()
        for connection in self.open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def endpoint(port: int, does: Behaviour, certificate: tuple[Path, Path] | None = None) -> Iterator[Endpoint]:
    """Listens on 127.0.0.1:`port` until the end; with a (certificate, key) it speaks TLS."""
    made = Endpoint(port, does)
    server = Server(("127.0.0.1", port), type("Bound", (Handler,), {"endpoint": made}))
    server.open = []
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
