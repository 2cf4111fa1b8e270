"""`manyeyes calibrate` on an emulated engine, whose true numbers are known; and on what cannot be measured."""

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from manyeyes.calibration import emulator_validation
from manyeyes.calibration.__main__ import main
from manyeyes.simulator import profile
from tests.integration.test_emulator import emulator


def test_a_profile_is_written_that_can_be_loaded_and_names_its_device(tmp_path: Path) -> None:
    out = tmp_path / "found.yaml"
    # As with gateway.report_cached_tokens: false, the default, under which calibrate must still see the cache.
    flags = ("--start-seconds", "0", "--speed", "8", "--no-enable-prompt-tokens-details")
    with emulator(tmp_path, *flags, constant=False) as engine:
        quick = ["--repeats", "1", "--together", "4", "--batched-tokens", "2048"]
        assert main(["--url", engine.url, "--out", str(out), "--device", "a test", *quick]) == 0
    assert profile.load_profile(str(out)).tokens_per_word > 0
    assert "a test, measured on" in out.read_text()
    measured = [json.loads(line) for line in out.with_suffix(".jsonl").read_text().splitlines()]
    (prefix,) = (line for line in measured if line.get("series") == "prefix")
    assert 0 < prefix["cached"] < prefix["tokens"]


class NotVllm(http.server.BaseHTTPRequestHandler):
    """Has models and no metrics, as a gateway does."""

    def do_GET(self) -> None:
        body = b'{"data":[{"id":"m"}]}' if self.path == "/v1/models" else b""
        self.send_response(200 if body else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *about: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def gateway() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), NotVllm) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_gateway_is_refused_because_its_engines_cannot_be_told_apart(
    gateway: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--url", gateway, "--out", str(tmp_path / "p.yaml")]) == 2
    assert "Give the address of one engine, not the gateway's" in capsys.readouterr().err


def test_a_model_that_is_not_served_is_named_with_those_that_are(
    gateway: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--url", gateway, "--model", "other", "--out", str(tmp_path / "p.yaml")]) == 2
    assert f"MODEL=other: {gateway} serves m" in capsys.readouterr().err


@pytest.mark.parametrize("program", [main, emulator_validation.main], ids=["calibrate", "error"])
@pytest.mark.parametrize(
    ("url", "says"), [("http://127.0.0.1:9", "cannot be reached"), ("localhost", "URL: expected http://host:port")]
)
def test_nobody_at_that_address_is_one_line(
    program: Callable[[list[str]], int], url: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = ["--profile", "a100-qwen3-vl-4b"] if program is emulator_validation.main else []
    assert program(["--url", url, "--out", str(tmp_path / "p.yaml"), *named]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.strip().count("\n") == 0
