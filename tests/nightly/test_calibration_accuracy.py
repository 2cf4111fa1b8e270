"""`manyeyes calibrate` on an emulated engine, whose true numbers are known: it finds them."""

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
