"""A stand-in for Docker behind its socket, and the real nginx with the rendered filter in front of it."""

import contextlib
import json
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any

from manyeyes.config.placement import PlacedCluster
from manyeyes.devcluster.cluster import nginx_binary
from manyeyes.devcluster.eventually import eventually
from manyeyes.devcluster.ports import free_port, is_listening
from manyeyes.render.docker_socket_filter import PORT, SOCKET, filter_conf

LONG_AGO = "2020-01-01T00:00:00.123456789Z"


@dataclass
class FakeDocker:
    """Containers by name, and every call as it arrived."""

    states: dict[str, str] = field(default_factory=dict)
    labels: dict[str, dict[str, str]] = field(default_factory=dict)
    stats: dict[str, Any] = field(default_factory=dict)
    started_at: dict[str, str] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    act: Callable[[str, str], None] = lambda name, action: None
    """Called with container and action before the answer."""

    def add(self, project: str, engine: str, state: str = "running") -> None:
        name = f"{project}-{engine}-1"
        self.states[name] = state
        self.labels[name] = {"com.docker.compose.project": project, "manyeyes.engine": engine}

    def listed(self) -> list[dict[str, Any]]:
        return [
            {"Names": [f"/{name}"], "State": state, "Labels": self.labels[name]} for name, state in self.states.items()
        ]

    def do(self, name: str, action: str) -> int:
        """The status of the answer."""
        if name not in self.states:
            return 404
        running = self.states[name] == "running"
        if action in ("start", "stop") and running is (action == "start"):
            return 304
        self.act(name, action)
        self.started_at[name] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.123456789Z")
        self.states[name] = "exited" if action == "stop" else "running"
        return 204


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True


@contextlib.contextmanager
def docker_behind_filter(folder: Path, cluster: PlacedCluster) -> Iterator[tuple[FakeDocker, str]]:
    """(the stand-in, the address of the filter in front of it)."""
    # The path of a socket has at most 107 characters.
    short = tempfile.TemporaryDirectory()
    docker, socket, port = FakeDocker(), Path(short.name) / "docker.sock", free_port()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def address_string(self) -> str:
            return "socket"

        def log_message(self, *arguments: object) -> None:
            pass

        def _answer(self, status: int, document: object = None) -> None:
            body = b"" if document is None else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _any(self) -> None:
            docker.seen.append(f"{self.command} {self.path}")
            docker.headers.append({key.lower(): value for key, value in self.headers.items()})
            docker.bodies.append(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
            match self.path.split("?")[0].split("/")[1:]:
                case ["_ping"]:
                    self._answer(200)
                case ["containers", "json"]:
                    self._answer(200, docker.listed())
                case ["containers", name, "json"]:
                    self._answer(
                        200, {"State": {"StartedAt": docker.started_at.get(name, LONG_AGO)}, "RestartCount": 2}
                    )
                case ["containers", name, "stats"]:
                    self._answer(200, docker.stats.get(name, {"cpu_stats": {}, "memory_stats": {}}))
                case ["containers", name, action]:
                    self._answer(docker.do(name, action))
                case _:
                    self._answer(200, {"reached": self.path})

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _any

    server = _Server(str(socket), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    (folder / "tmp").mkdir(exist_ok=True)
    conf = folder / "filter.conf"
    text = filter_conf(cluster).replace("/tmp/", f"{folder}/tmp/")
    conf.write_text(text.replace(f"listen {PORT}", f"listen 127.0.0.1:{port}").replace(SOCKET, str(socket)))
    with (folder / "filter.log").open("w") as log:
        nginx = subprocess.Popen(
            [nginx_binary(), "-p", str(folder), "-c", str(conf), "-e", "stderr", "-g", "daemon off;"], stderr=log
        )
    try:
        eventually(lambda: is_listening(port), 10, 0.05, "the filter listens")
        yield docker, f"http://127.0.0.1:{port}"
    finally:
        nginx.terminate()
        nginx.wait(timeout=10)
        server.shutdown()
        server.server_close()
        short.cleanup()
        print((folder / "filter.log").read_text())
