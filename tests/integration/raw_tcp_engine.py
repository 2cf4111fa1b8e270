"""Something that listens where an engine should, and writes whatever a test wants, byte for byte."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

ANSWERED = b'{"choices": [{"finish_reason": "stop"}]}'


def http(body: bytes = b"", status: int = 200, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def well(path: str) -> bytes:
    """As an engine answers that has nothing to tell of its work."""
    return http(ANSWERED) if path.startswith("/v1/") else http(b"", 404 if path in ("/load", "/metrics") else 200)


@dataclass
class RawEngine:
    """`says` may be replaced while it runs."""

    says: Callable[[str], bytes]
    port: int
    asked: int = 0
    heads: list[str] = field(default_factory=list)
    """Of the requests, as they arrived."""


@contextlib.contextmanager
def raw_engine(port: int, says: Callable[[str], bytes] = well, hang_up: bool = False) -> Iterator[RawEngine]:
    """Listens on 127.0.0.1:`port` (0: any) until the end; each request gets the bytes that `says` returns for its path.

    With `hang_up` it closes each connection after one answer without having said so.
    """
    server = socket.create_server(("127.0.0.1", port), backlog=256)
    made = RawEngine(says, server.getsockname()[1])
    open_now: list[socket.socket] = []

    def serve(client: socket.socket) -> None:
        buffer = b""
        with contextlib.suppress(OSError, ValueError), client:
            while data := client.recv(65536):
                buffer += data
                while b"\r\n\r\n" in buffer:
                    head, _, rest = buffer.partition(b"\r\n\r\n")
                    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
                    if len(rest) < length:
                        break
                    buffer = rest[length:]
                    made.asked += 1
                    made.heads.append(head.decode())
                    client.sendall(made.says(head.split()[1].decode()))
                    if hang_up:
                        return

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = server.accept()
                open_now.append(client)
                threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield made
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        for client in open_now:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
