"""Images by their digest, as a registry tells it: here one of the test's own, on the loopback address."""

import contextlib
import hashlib
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from manyeyes.cli import upgrade
from manyeyes.cli.images import provide
from manyeyes.cli.required_images import RequiredImage
from manyeyes.cli.terminal import CliError
from manyeyes.config.loader import load
from manyeyes.config.placement import DEFAULT_INVENTORY, place_engines


def has_buildx() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "buildx", "version"], capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(not has_buildx(), reason="asking a registry wants Docker's client with buildx")
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"


def sum_of(raw: bytes) -> str:
    return "sha256:" + hashlib.sha256(raw).hexdigest()


class Store:
    """What the registry has: an index with one platform for each tag, and what it is made of, by digest."""

    def __init__(self, *tags: str) -> None:
        self.by_name: dict[str, tuple[str, bytes]] = {}
        for tag in tags:
            config = self._put(CONFIG, {"architecture": "amd64", "os": "linux", "config": {"Labels": {"of": tag}}})
            manifest = self._put(MANIFEST, {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []})
            entry = manifest | {"platform": {"os": "linux", "architecture": "amd64"}}
            listed = self._put(INDEX, {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]})
            self.by_name[tag] = self.by_name[str(listed["digest"])]

    def _put(self, kind: str, document: dict[str, object]) -> dict[str, object]:
        raw = json.dumps(document).encode()
        self.by_name[sum_of(raw)] = (kind, raw)
        return {"mediaType": kind, "digest": sum_of(raw), "size": len(raw)}


STORE = Store("nginx:1.30", "python:3.11-slim")


def digest(tag: str) -> str:
    return sum_of(STORE.by_name[tag][1])


@contextlib.contextmanager
def registry() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = self.path.strip("/").split("/")
            name = f"{parts[1]}:{parts[-1]}" if len(parts) > 1 else ""
            kind, raw = STORE.by_name.get(parts[-1]) or STORE.by_name.get(name) or ("", b"" if name else b"{}")
            self._say(200 if raw else 404, raw or b"{}", kind or "application/json")

        do_HEAD = do_GET

        def _say(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Docker-Content-Digest", sum_of(body))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def configured(folder: Path, at: str) -> Path:
    file = folder / "cluster.yaml"
    others = ("vllm_cuda", "vllm_cpu", "prometheus", "grafana", "nginx_exporter")
    missing = "".join(f"  {key}: {at}/none:1\n" for key in others)
    file.write_text(
        f"# mine\npools: [{{name: a, model: org/A}}]\nimages:\n  nginx: {at}/nginx:1.30  # the gateway\n  python: {at}/python:3.11-slim\n{missing}"
    )
    return file


def test_tags_become_digests_and_everything_else_stays(tmp_path: Path) -> None:
    with registry() as at:
        file = configured(tmp_path, at)
        upgrade.pin_images(file)
        images = load(file).images
        assert images.nginx == f"{at}/nginx:1.30@{digest('nginx:1.30')}"
        assert images.python == f"{at}/python:3.11-slim@{digest('python:3.11-slim')}"
        assert images.prometheus == f"{at}/none:1"
        assert images.controller.startswith("manyeyes/")
        text = file.read_text()
        assert "# mine" in text
        assert "# the gateway" in text
        upgrade.pin_images(file)  # what a tag stands for today, again
        assert file.read_text() == text


def test_without_a_registry_nothing_is_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrade, "digest_of", lambda reference: "")
    file = configured(tmp_path, "127.0.0.1:9")
    before = file.read_text()
    with pytest.raises(CliError, match="no registry is reachable"):
        upgrade.pin_images(file)
    assert file.read_text() == before


def test_an_image_that_is_pinned_and_cannot_be_pulled_is_not_replaced_by_one_built_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pinned = "nginx:1.30@sha256:" + "0" * 64
    monkeypatch.setattr("manyeyes.cli.images.required_images", lambda cluster: [RequiredImage(pinned, lambda: None)])
    monkeypatch.setattr("manyeyes.cli.images._is_present", lambda image, digests: False)
    monkeypatch.setattr("manyeyes.cli.images._pull", lambda reference: "")
    with pytest.raises(CliError, match="an image built here has another digest"):
        provide(place_engines(load(Path("config/cluster.yaml")), DEFAULT_INVENTORY))
