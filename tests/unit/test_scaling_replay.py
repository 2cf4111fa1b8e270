"""A recorded load, played again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from manyeyes.config.scaling import Scaling, Target
from manyeyes.controller.autoscaling.demand import PoolLoad
from manyeyes.controller.autoscaling.replay import InvalidRecord, parse_record, replay
from manyeyes.controller.autoscaling.store import LoadRecorder

ROOT = Path(__file__).resolve().parents[2]
POLICY = Scaling(target=Target(in_flight=10))


def recorded() -> list[PoolLoad]:
    """An hour: quiet, twenty minutes with 35 in flight, quiet."""
    return [PoolLoad(1_800_000_000.0 + 5 * step, 1, 35 if 240 <= step < 480 else 4) for step in range(960)]


def lines(loads: list[PoolLoad], pool: str = "big") -> str:
    return "".join(
        json.dumps({"pool": pool, "at_s": one.at_s, "serving": one.serving, "in_flight": one.in_flight}) + "\n"
        for one in loads
    )


def test_what_the_controller_records_is_what_a_replay_reads(tmp_path: Path) -> None:
    record = LoadRecorder(tmp_path)
    wanted = [PoolLoad(1.0, 2, 7, 0.5, None, 0.25), PoolLoad(6.0, 2, 9)]
    for one in wanted:
        record.add([("big", one), ("small", PoolLoad(one.at_s, 1, 0))])
    (file,) = tmp_path.glob("*.jsonl")
    assert parse_record(file.read_text(), "big") == wanted


def test_a_record_that_was_cut_short_is_read_to_its_last_whole_line() -> None:
    assert parse_record(lines(recorded()[:3])[:-20], "big") == recorded()[:2]


def test_anything_else_is_told_with_its_line() -> None:
    with pytest.raises(InvalidRecord, match="line 2 is not a record"):
        parse_record(lines(recorded()[:1]) + "nonsense\n" + lines(recorded()[:1]), "big")
    with pytest.raises(InvalidRecord, match="no records of pool 'small'"):
        parse_record(lines(recorded()), "small")


def test_prometheus_exports_are_read_too() -> None:
    result = [
        {"metric": {"pool": "big", "kind": kind}, "values": [[100, value], [105, value]]}
        for kind, value in (("in_flight", "12"), ("serving", "2"))
    ]
    text = json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}})
    assert parse_record(text, "big") == [PoolLoad(100, 2, 12), PoolLoad(105, 2, 12)]


def test_decisions_and_engine_hours_follow_from_the_record() -> None:
    replayed = replay(POLICY, 4, recorded())
    assert [decision.desired for decision in replayed.decisions][:2] == [3, 4]
    assert replayed.decisions[-1].desired < 4
    assert 1.5 < replayed.engine_hours < 4 * replayed.hours
    assert 0 < replayed.overloaded < 0.1
    assert replay(POLICY, 4, recorded()) == replayed


def test_another_policy_is_compared_on_the_same_record(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(
        "pools: [{name: big, model: m, scaling: {target: {in_flight: 10}}}]\n"
        "engines: [{name: a, pool: big, gpus: [0]}, {name: b, pool: big, gpus: [1]}, {name: c, pool: big, gpus: [2]}]\n"
    )
    (tmp_path / "load.jsonl").write_text(lines(recorded()))
    (tmp_path / "other.yaml").write_text("target: {in_flight: 20}\n")
    command = [
        sys.executable,
        "-m",
        "manyeyes.controller.autoscaling.replay",
        str(tmp_path / "load.jsonl"),
        "--pool=big",
    ]
    said = subprocess.run(
        [*command, f"--config={tmp_path}/cluster.yaml", f"--other={tmp_path}/other.yaml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "as configured:" in said
    assert "scales from 1 to 3 engines: 35 requests in flight, target 10 per engine" in said
    assert "scales from 1 to 2 engines: 35 requests in flight, target 20 per engine" in said
    assert said.count("of 3 always on") == 2
