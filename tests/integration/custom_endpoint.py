"""An endpoint with an API of its own, as a test tells it to behave, and what it was asked."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TEMPLATE = {
    "model": "{MODEL_NAME}",
    "input": {"prompt": "{USER_PROMPT}", "images": ["{IMAGE_URL}"]},
    "parameters": {"temperature": "{MODEL_TEMPERATURE}", "limit": "{MAX_TOKENS}", "incremental": "{STREAM}"},
}


@dataclass
class Foreign:
    """Answers `words` one by one, `pause_s` apart where it streams."""

    port: int
    words: list[str] = field(default_factory=lambda: ["One ", "two ", "three."])
    pause_s: float = 0
    status: int = 200
    raw: bytes | None = None
    """Said in place of an answer."""
    lines: bool = False
    """Streams a JSON document per line in place of events."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    sent: int = 0
    cut: threading.Event = field(default_factory=threading.Event)
    """Set when somebody hung up before the end."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/generate?v=2"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    foreign: Foreign

    def do_POST(self) -> None:
        here = self.foreign
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        here.asked.append({"path": self.path} | body)
        here.headers.append(dict(self.headers))
        if here.raw is not None or here.status != 200:
            return self._whole(here.raw or b'{"fault": "as told"}')
        if body.get("parameters", {}).get("incremental"):
            return self._stream()
        document = {"output": {"text": "".join(here.words), "why": "MAX_LENGTH"}, "usage": {"in": 11, "out": 3}}
        return self._whole(json.dumps(document).encode())

    def _whole(self, body: bytes) -> None:
        self.send_response(self.foreign.status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def _stream(self) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        documents: list[dict[str, Any]] = [{"output": {"text": word}} for word in self.foreign.words]
        documents.append({"output": {"why": "stop"}, "usage": {"in": 11, "out": 3}})
        try:
            for document in documents:
                text = json.dumps(document)
                self.wfile.write((f"{text}\n" if self.foreign.lines else f"event: result\ndata: {text}\n\n").encode())
                self.foreign.sent += 1
                time.sleep(self.foreign.pause_s)
        except OSError:
            self.foreign.cut.set()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def foreign(port: int) -> Iterator[Foreign]:
    """Listens on 127.0.0.1:`port` until the end."""
    made = Foreign(port)
    server = ThreadingHTTPServer(("127.0.0.1", port), type("Bound", (Handler,), {"foreign": made}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
