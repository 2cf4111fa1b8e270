"""`make calibrate` on an emulated engine, whose true numbers are known; and on what cannot be measured."""

import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from manyeyes.calibration import emulator_validation
from manyeyes.calibration.__main__ import main
from manyeyes.simulator import profile
from manyeyes.simulator.core import encoding_s, iteration_s
from manyeyes.simulator.scheduler import ScheduledBatch
from tests.integration.test_emulator import emulator

# Slow enough that what the processes themselves cost on a busy machine is small beside it.
TRUE = vars(profile.load_profile("rtx4090-qwen3-vl-4b-fp8")) | {
    "render_ms": 20.0,
    "preprocess_ms": 150.0,
    "iteration_ms": 25.0,
    "decode_us": 3000.0,
    "encode_us": 120.0,
    "prefill_us": 60.0,
    "tokens_per_word": 1.5,
}


@pytest.fixture
def true_profile(tmp_path: Path) -> Path:
    path = tmp_path / "true.yaml"
    path.write_text(yaml.safe_dump(TRUE))
    return path


def test_an_engine_is_measured_and_its_profile_has_about_its_times(tmp_path: Path, true_profile: Path) -> None:
    flags = ("--start-seconds", "0", "--profile", str(true_profile), "--max-num-batched-tokens", "2048")
    out = tmp_path / "found.yaml"
    with emulator(tmp_path, *flags, constant=False) as engine:
        quick = ["--repeats", "2", "--together", "4", "--batched-tokens", "2048"]
        assert main(["--url", engine.url, "--out", str(out), "--device", "a test", *quick]) == 0
    found, true = profile.load_profile(str(out)), profile.load_profile(str(true_profile))
    prompt = ScheduledBatch(prefill_tokens=1500, prefill_pairs=1500 * 1500 // 2)
    for batch in (prompt, ScheduledBatch(decode_sequences=4, context_tokens=400)):
        assert iteration_s(batch, found) == pytest.approx(iteration_s(batch, true), rel=0.4)
    assert encoding_s([800], found) == pytest.approx(encoding_s([800], true), rel=0.6)
    assert found.preprocess_item_ms + 0.8 * found.preprocess_ms == pytest.approx(2 + 0.8 * 150, rel=0.6)
    assert found.tokens_per_word == pytest.approx(1.5, rel=0.02)
    assert found.health_ms > 0
    assert "a test, measured on" in out.read_text()
    assert len(out.with_suffix(".jsonl").read_text().splitlines()) > 15


def test_an_emulated_engine_beside_itself_has_a_small_error(
    tmp_path: Path, true_profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with emulator(tmp_path, "--start-seconds", "0", "--profile", str(true_profile), constant=False) as engine:
        wanted = ["--url", engine.url, "--profile", str(true_profile), "--users", "1", "2"]
        out = tmp_path / "error.jsonl"
        assert emulator_validation.main([*wanted, "--requests", "4", "--repeats", "1", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "**1 user, 4 requests to each; others used" in said
    told = emulator_validation.read(out)
    assert len(told) == 2 * (4 + 8)
    assert {one.prompt_tokens for one in told if one.target == "real"} == {
        one.prompt_tokens for one in told if one.target == "emulated"
    }
    assert emulator_validation.tables(told) in said


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
    ("url", "says"), [("http://127.0.0.1:9", "cannot be reached"), ("localhost", "URL wants http://host:port")]
)
def test_nobody_at_that_address_is_one_line(
    program: Callable[[list[str]], int], url: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = ["--profile", "a100-qwen3-vl-4b"] if program is emulator_validation.main else []
    assert program(["--url", url, "--out", str(tmp_path / "p.yaml"), *named]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.strip().count("\n") == 0
