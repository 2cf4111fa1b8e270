"""How the host asks a gateway that speaks HTTPS: it trusts exactly the file in the secrets folder."""

import http.server
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from manyeyes.cli import gateway_client
from manyeyes.config.cluster import Cluster
from manyeyes.config.loader import parse
from tests.integration.certificate import certificate


class Healthz(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503)
        self.end_headers()
        self.wfile.write(b'{"pools": [{"engines": []}]}')

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def listening(crt: Path, key: Path) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(crt, key)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Healthz) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def at(port: int) -> Cluster:
    return parse(f"pools: [{{name: a, model: m}}]\ngateway: {{port: {port}, tls: {{}}}}\n")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    return tmp_path


def test_a_certificate_for_another_name_is_trusted_when_it_is_the_one_in_the_folder(folder: Path) -> None:
    with listening(*certificate(folder, "eyes.example.com")) as port:
        assert gateway_client.healthz(at(port)) == {"pools": [{"engines": []}]}


def test_another_certificate_is_not_trusted(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    certificate(folder, "localhost")
    with listening(*certificate(other, "localhost")) as port:
        assert gateway_client.healthz(at(port)) == {}
