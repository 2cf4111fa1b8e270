"""`make restart-rolling` on real vLLM while people chat. MANYEYES_URL is the address of the cluster that tests/run brought up."""

import os
import subprocess
from pathlib import Path

import httpx
import pytest

from manyeyes.devcluster.chat_load import chat_load
from manyeyes.devcluster.eventually import eventually

URL = os.environ.get("MANYEYES_URL", "")
PROJECT = os.environ.get("MANYEYES_TEST_PROJECT", "manyeyes-test")
CONFIG = os.environ.get("MANYEYES_TEST_CONFIG", "tests/e2e/cluster.yaml")
ROOT = Path(__file__).resolve().parents[2]
ENGINES = {"cpu-0", "cpu-1"}

pytestmark = pytest.mark.skipif(not URL, reason="MANYEYES_URL is not set: no running cluster")


def containers() -> dict[str, str]:
    """{engine: id}."""
    label = f"label=com.docker.compose.project={PROJECT}"
    form = '{{.Label "com.docker.compose.service"}} {{.ID}}'
    told = subprocess.run(
        ["docker", "ps", "--filter", label, "--format", form], check=True, capture_output=True, text=True
    )
    return dict(line.split() for line in told.stdout.splitlines() if line.split()[0] in ENGINES)


def states() -> dict[str, str]:
    pools = httpx.get(f"{URL}/healthz", timeout=5).json()["pools"]
    return {engine["name"]: engine["state"] for pool in pools for engine in pool["engines"]}


def test_two_engines_restarted_one_after_the_other_fail_no_request_and_abort_no_answer() -> None:
    before = containers()
    assert set(before) == ENGINES
    with chat_load(URL, "default", users=3) as people:
        eventually(lambda: set(people.answered_by()) == ENGINES, 120, what="both engines answer")
        told = subprocess.run(
            ["make", "restart-rolling", f"CONFIG={CONFIG}"], cwd=ROOT, capture_output=True, text=True, timeout=1200
        )
        seen = len(people.answers)
        eventually(lambda: set(people.answered_by(seen)) == ENGINES, 120, what="both engines answer again")
    assert told.returncode == 0, told.stdout + told.stderr
    people.assert_nothing_lost(cut_on=set())
    assert people.outcomes["cut"] == 0
    assert set(states().values()) == {"up"}
    after = containers()
    assert all(after[name] != before[name] for name in ENGINES), (before, after)
    print(told.stdout, dict(people.outcomes))
