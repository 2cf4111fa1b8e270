"""As much of a model hub as a download needs: one model, from a folder, over HTTP."""

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SHA = "0123456789abcdef0123456789abcdef01234567"


@contextlib.contextmanager
def hub(host: str, model: str, folder: Path, seconds: float = 0) -> Iterator[tuple[str, list[str]]]:
    """(address, requested paths) of a hub that has `model`; every other one is 404. Its weights take `seconds` to send."""
    seen: list[str] = []
    files = {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}
    siblings = [{"rfilename": name, "size": path.stat().st_size} for name, path in files.items()]
    about = {
        "_id": "1",
        "id": model,
        "modelId": model,
        "sha": SHA,
        "private": False,
        "gated": False,
        "siblings": siblings,
    }
    tree = [
        {"type": "file", "path": name, "size": path.stat().st_size, "oid": _digest(path)}
        for name, path in files.items()
    ]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            seen.append(path)
            if path in (f"/api/models/{model}", *(f"/api/models/{model}/revision/{name}" for name in (SHA, "main"))):
                self._send(json.dumps(about).encode(), "application/json")
            elif path == f"/api/models/{model}/tree/{SHA}":
                self._send(json.dumps(tree).encode(), "application/json")
            elif path.startswith(f"/{model}/resolve/{SHA}/") and path.rsplit("/", 1)[1] in files:
                file = files[path.rsplit("/", 1)[1]]
                self._send(file.read_bytes(), "application/octet-stream", _digest(file))
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()

        def _send(self, content: bytes, kind: str, etag: str = "") -> None:
            start = 0
            if wanted := self.headers.get("Range"):
                start = int(wanted.removeprefix("bytes=").split("-")[0])
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content) - start))
            if wanted:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            if etag:
                self.send_header("ETag", f'"{etag}"')
                self.send_header("X-Repo-Commit", SHA)
            self.end_headers()
            if self.command != "GET":
                return
            rest, pieces = content[start:], 40 if len(content) > 1_000_000 else 1
            size = -(-len(rest) // pieces) or 1
            for place in range(0, len(rest), size):
                self.wfile.write(rest[place : place + size])
                time.sleep(seconds / pieces if pieces > 1 else 0)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer((host, 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{host}:{server.server_address[1]}", seen
    finally:
        server.shutdown()
        server.server_close()


def _digest(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
