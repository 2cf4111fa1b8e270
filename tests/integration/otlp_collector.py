"""Takes OpenTelemetry spans as a collector does (OTLP over HTTP, JSON), and remembers them."""

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Collector:
    port: int
    spans: list[dict[str, Any]] = field(default_factory=list)

    def of_trace(self, trace: str) -> list[dict[str, Any]]:
        return [span for span in self.spans if span["traceId"] == trace]


def attributes(span: dict[str, Any]) -> dict[str, Any]:
    """{name: value} as plain values."""
    return {one["key"]: next(iter(one["value"].values())) for one in span["attributes"]}


@contextlib.contextmanager
def collector(port: int) -> Iterator[Collector]:
    """Listens while the context lasts."""
    taken = Collector(port)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v1/traces":
                for resource in json.loads(body)["resourceSpans"]:
                    for scope in resource["scopeSpans"]:
                        taken.spans.extend(scope["spans"])
            self.send_response(200 if self.path == "/v1/traces" else 404)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield taken
    finally:
        server.shutdown()
        server.server_close()
