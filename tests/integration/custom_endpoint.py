"""An endpoint with an API of its own, as a test tells it to behave, and what it was asked."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.integration.scripted_engine import Asked, Handler, endpoint

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

    def answer(self, handler: Handler, asked: Asked) -> None:
        self.asked.append({"path": asked.path} | asked.json)
        self.headers.append(asked.headers)
        with contextlib.suppress(OSError):
            if self.raw is not None or self.status != 200:
                handler.answer(self.status, self.raw or b'{"fault": "as told"}')
            elif asked.json.get("parameters", {}).get("incremental"):
                self._stream(handler)
            else:
                document = {"output": {"text": "".join(self.words), "why": "MAX_LENGTH"}, "usage": {"in": 11, "out": 3}}
                handler.answer(200, json.dumps(document).encode())

    def _stream(self, handler: Handler) -> None:
        handler.close_connection = True
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        documents: list[dict[str, Any]] = [{"output": {"text": word}} for word in self.words]
        documents.append({"output": {"why": "stop"}, "usage": {"in": 11, "out": 3}})
        try:
            for document in documents:
                text = json.dumps(document)
                handler.wfile.write((f"{text}\n" if self.lines else f"event: result\ndata: {text}\n\n").encode())
                self.sent += 1
                time.sleep(self.pause_s)
        except OSError:
            self.cut.set()


@contextlib.contextmanager
def foreign(port: int) -> Iterator[Foreign]:
    """Listens on 127.0.0.1:`port` until the end."""
    made = Foreign(port)
    with endpoint(port, made.answer):
        yield made
