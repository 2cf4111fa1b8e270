import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from loadtest import gateway_client as in_cluster
from loadtest.gateway_client import GrafanaAnnotations


class Grafana(BaseHTTPRequestHandler):
    asked: list[tuple[str, str, dict[str, Any]]] = []  # noqa: RUF012, one server a test
    status = 200

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append((self.path, self.headers.get("Authorization", ""), body))
        self.send_response(self.status)
        self.end_headers()

    def do_DELETE(self) -> None:
        self.asked.append((self.path, self.headers.get("Authorization", ""), {}))
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def grafana() -> Iterator[str]:
    Grafana.asked, Grafana.status = [], 200
    with HTTPServer(("127.0.0.1", 0), Grafana) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/grafana/"
        server.shutdown()


def test_a_phase_is_marked_from_its_beginning_to_its_end(grafana: str) -> None:
    GrafanaAnnotations(grafana, "token").annotate("2 engines, full", 100.5, 130.25, ["scale-proof"])
    ((path, key, body),) = Grafana.asked
    assert (path, key) == ("/grafana/api/annotations", "Bearer token")
    assert (body["time"], body["timeEnd"], body["text"]) == (100_500, 130_250, "2 engines, full")
    assert body["tags"] == ["manyeyes-loadtest", "scale-proof"]


def test_a_grafana_that_refuses_is_said_once_and_nothing_fails(
    grafana: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Grafana.status = 401
    marks = GrafanaAnnotations(grafana)
    marks.annotate("one", 1, 2)
    marks.annotate("two", 2, 3)
    assert len(Grafana.asked) == 1
    assert capsys.readouterr().out.count("Grafana accepts no annotations") == 1


def test_without_a_url_nobody_is_asked() -> None:
    marks = GrafanaAnnotations()
    marks.annotate("one", 1, 2)
    assert marks.problem == ""


def test_a_run_is_a_mark_of_the_cluster_for_as_long_as_it_lasts(grafana: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(in_cluster.ADMIN_KEY_VARIABLE, "an-admin-key")
    with in_cluster.ControllerAnnotations(grafana.removesuffix("/grafana/") + "/v1").during("chat/image, 20 users", 60):
        ((path, key, body),) = Grafana.asked
        assert (path, key) == ("/api/annotations", "Bearer an-admin-key")
        assert body == {"text": "chat of image, 20 users", "seconds": 120}
    assert Grafana.asked[1][0] == "/api/annotations/chat%20of%20image%2C%2020%20users"


def test_a_cluster_that_takes_no_mark_is_said_once_and_the_run_goes_on(
    grafana: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(in_cluster.ADMIN_KEY_VARIABLE, "a-wrong-key")
    Grafana.status = 401
    with in_cluster.ControllerAnnotations(grafana).during("one", 60):
        pass
    assert len(Grafana.asked) == 1
    assert capsys.readouterr().out.count("not marked in the cluster") == 1


def test_without_the_admin_key_nothing_is_marked(grafana: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(in_cluster.ADMIN_KEY_VARIABLE, raising=False)
    with in_cluster.ControllerAnnotations(grafana).during("one", 60):
        pass
    assert Grafana.asked == []
