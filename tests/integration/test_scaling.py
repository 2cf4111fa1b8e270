"""Engines come and go with the load: real emulated engines, controller and nginx; Docker is a stand-in behind its real filter."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from manyeyes.devcluster.chat_load import chat_load
from manyeyes.devcluster.cluster import ROOT, LocalCluster, local_cluster
from manyeyes.devcluster.eventually import eventually
from manyeyes.devcluster.ports import is_listening
from tests.integration import documents
from tests.integration.docker_socket import FakeDocker, docker_behind_filter
from tests.integration.documents import with_admin_key
from tests.integration.membership import controller, sentences, states
from tests.integration.registry_client import call
from tests.placed import placed

QUICK_CONTROLLER = {"probe_interval_s": 0.5, "load_interval_s": 0.5, "scaling_interval_s": 0.5}
QUICK = {
    "scale_up": {"window_s": 1, "cool_down_s": 1, "step": 1},
    "scale_down": {"window_s": 4, "cool_down_s": 1, "drain_s": 60},
    "start_s": 5,
    "wake_s": 2,
}
SLOW_ANSWERS = ("--ttft-ms=200", "--tpot-ms=80")
"""1.4 s for an answer of 16 tokens, so that people wait for engines nearly all the time and requests in flight are their number, on a busy machine too."""
FAULTY = ("--start-seconds=0", "--ttft-ms=20", "--tpot-ms=4", "--faults")
FILTER = """
name: manyeyes
pools: [{name: big, model: m}, {name: small, model: n}]
engines:
"""


def document(scaling: dict[str, Any] | None, engines: int = 3, **settings: Any) -> dict[str, Any]:
    names = [f"big-{number}" for number in range(engines)]
    policy = {"big": {"scaling": scaling and QUICK | scaling}}
    return documents.document({"big": names}, policy, controller=QUICK_CONTROLLER | settings)


def scaling(running: LocalCluster, pool: str = "big") -> dict[str, Any]:
    return dict(controller(running, f"/api/pools/{pool}/scaling").json())


def stages(running: LocalCluster, pool: str = "big") -> dict[str, str]:
    return {engine["name"]: engine["stage"] for engine in scaling(running, pool)["engines"]}


def settle(running: LocalCluster, wanted: dict[str, str], within_s: float = 60, pool: str = "big") -> None:
    def check() -> bool:
        found = stages(running, pool)
        assert found == wanted, (found, scaling(running, pool)["decision"])
        return True

    eventually(check, within_s, 0.3, f"{wanted}")


def serves(running: LocalCluster) -> None:
    """Not by all engines: idle ones are stopped seconds after the start."""
    eventually(lambda: running.ask("big").status_code == 200, 30, 0.2, "it serves")


def one_serves(running: LocalCluster, within_s: float = 90) -> None:
    """Whichever had least to do went."""

    def check() -> bool:
        found = sorted(stages(running).values())
        assert found == ["serving"] + ["stopped"] * (len(found) - 1), (found, scaling(running)["decision"])
        return True

    eventually(check, within_s, 0.3, "one serves and the others rest")


def restart_controller(running: LocalCluster) -> None:
    running.kill("controller")
    running.start_controller()
    eventually(lambda: is_listening(running.ports["controller"]), 30, 0.2, "the controller is back")


@contextlib.contextmanager
def with_docker(folder: Path, doc: dict[str, Any], **more: Any) -> Iterator[tuple[LocalCluster, FakeDocker]]:
    """A stand whose engines are containers to the controller: processes that the stand-in for Docker starts and stops."""
    names = [engine["name"] for engine in doc["engines"]]
    rows = "".join(f"- {{name: {name}, pool: big, flavour: emulated}}\n" for name in names)
    with docker_behind_filter(with_admin_key(folder), placed(FILTER + rows)) as (docker, url):
        os.environ["MANYEYES_CONTAINERS"] = url
        try:
            with local_cluster(folder, doc, **more) as running:

                def act(container: str, action: str) -> None:
                    name = container.removeprefix("manyeyes-").removesuffix("-1")
                    if action in ("stop", "restart") and name in running.processes:
                        running.kill(name, signal.SIGKILL if action == "restart" else signal.SIGTERM)
                    if action in ("start", "restart"):
                        running.start_engine(name)

                docker.act = act
                for name in names:
                    docker.add("manyeyes", name, "running" if name in running.processes else "created")
                eventually(lambda: is_listening(running.ports["controller"]), 30, 0.2, "the controller answers")
                yield running, docker
        finally:
            del os.environ["MANYEYES_CONTAINERS"]


def by_hand(running: LocalCluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`make scale`, as it runs in the controller's container."""
    environment = {
        "MANYEYES_CONTROLLER_HTTP_PORT": str(running.ports["controller"]),
        "MANYEYES_SECRETS": str(running.folder / "secrets"),
    }
    return subprocess.run(
        [sys.executable, "-m", "manyeyes.controller.autoscaling.set_replicas", "--wait-s=60", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_engines_are_stopped_and_started_with_the_load_and_no_request_fails(tmp_path: Path) -> None:
    doc = document({"min": 1, "target": {"in_flight": 6}}, record_load=True)
    with with_docker(tmp_path, doc, engine_flags=SLOW_ANSWERS) as (running, docker):
        serves(running)
        with chat_load(running.url, "big", users=2) as few:
            one_serves(running)
            stopped = ["exited", "exited", "running"]
            eventually(lambda: sorted(docker.states.values()) == stopped, 60, 0.2, "they are stopped")
            shown = ["sleeping", "sleeping", "up"]
            eventually(lambda: sorted(states(running).values()) == shown, 60, 0.2, "people see that they rest")
            with chat_load(running.url, "big", users=22) as many:
                eventually(lambda: list(stages(running).values()).count("serving") >= 2, 60, 0.3, "more serve")
                before = len(many.answers)
                eventually(lambda: len(many.answered_by(before)) >= 2, 60, 0.3, "the new ones answer")
            one_serves(running)
        for people in (few, many):
            assert set(people.outcomes) == {"answered"}, people.outcomes
    said = tmp_path.glob("state/load/*.jsonl")
    assert any('"pool":"big"' in file.read_text() for file in said)


def test_engines_sleep_and_wake_with_the_load_and_no_request_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    doc = document({"actuator": "sleep", "sleep_level": 2, "target": {"in_flight": 4}}, engines=2, containers=False)
    with local_cluster(with_admin_key(tmp_path), doc, engine_flags=(*SLOW_ANSWERS, "--enable-sleep-mode")) as running:
        serves(running)
        with chat_load(running.url, "big", users=2) as few:
            one_serves(running)
            with chat_load(running.url, "big", users=14) as many:
                settle(running, {"big-0": "serving", "big-1": "serving"})
                before = len(many.answers)
                eventually(lambda: len(many.answered_by(before)) == 2, 60, 0.3, "the woken one answers")
            one_serves(running)
            # From outside nobody can put an engine to sleep.
            for path in ("/sleep", "/v1/sleep", "/wake_up", "/v1/../sleep", "/collective_rpc"):
                assert running.client.post(f"{running.url}{path}").status_code != 200
            one_serves(running)
        for people in (few, many):
            assert set(people.outcomes) == {"answered"}, people.outcomes
        restart_controller(running)
        one_serves(running)
        assert running.ask("big").status_code == 200


def test_a_count_set_by_hand_is_reached_told_and_outlives_the_controller(tmp_path: Path) -> None:
    with with_docker(tmp_path, document(None)) as (running, _):
        running.all_up({"big-0", "big-1", "big-2"})
        done = by_hand(running, "1")
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "big: 1 engine serves"
        assert "  big-2 is draining" in done.stdout.splitlines()
        assert "  big-2 is stopped" in done.stdout.splitlines()
        restart_controller(running)
        eventually(lambda: scaling(running)["fixed"] == 1, 20)
        settle(running, {"big-0": "serving", "big-1": "stopped", "big-2": "stopped"})
        assert by_hand(running, "3").stdout.splitlines()[-1] == "big: 3 engines serve"
        refused = by_hand(running, "4")
        assert refused.returncode == 2
        assert refused.stderr.startswith("big has 3 engines, but 4 were requested. Add engines in config/cluster.yaml")
        assert by_hand(running, "many").returncode == 2
        for path, engines, headers, status in (
            ("/pools/big/scale", 1, {}, 401),
            ("/pools/big/scale", 0, None, 422),
            ("/pools/no/scale", 1, None, 404),
        ):
            assert call(running, "POST", path, headers, json={"engines": engines}).status_code == status


def test_a_broken_engine_is_replaced_and_one_that_somebody_started_stays_for_a_while(tmp_path: Path) -> None:
    doc = document({"target": {"in_flight": 50}, "scale_down": {"window_s": 15, "cool_down_s": 1}})
    with with_docker(tmp_path, doc) as (running, docker):
        settle(running, {"big-0": "serving", "big-1": "stopped", "big-2": "stopped"})
        running.kill("big-0")
        docker.states["manyeyes-big-0-1"] = "running"  # as Docker says of a container that it restarts
        spares = {"big-1", "big-2"}  # an engine whose stop is not finished yet is not started, so it can be either

        def serving() -> set[str]:
            return {name for name in spares if stages(running)[name] == "serving"}

        eventually(lambda: len(serving()) == 1, 40, 0.3, "a stand-in serves")
        assert stages(running)["big-0"] == "unavailable"
        (other,) = spares - serving()
        docker.do(f"manyeyes-{other}-1", "start")
        eventually(lambda: serving() == spares, 20, 0.3, "what somebody started serves")
        told = "big has 2 engines up, more than the desired 1; they stay while they are needed"
        eventually(lambda: told in sentences(running), 20, 0.3, "it is told")
        eventually(lambda: list(stages(running).values()).count("serving") == 1, 60, 0.3, "one goes again")


def test_a_hung_engine_is_restarted_and_serves_again(tmp_path: Path) -> None:
    doc = document(None, engines=2, restart_hung_after_s=5, hung_after_s=2)
    with with_docker(tmp_path, doc) as (running, docker):
        running.all_up({"big-0", "big-1"})
        hung = running.processes["big-1"]
        os.killpg(hung.pid, signal.SIGSTOP)
        eventually(lambda: "POST /containers/manyeyes-big-1-1/restart" in docker.seen, 60, 0.3, "it is restarted")
        assert any(said.startswith("big-1 is restarted: it runs but has not responded") for said in sentences(running))
        running.all_up({"big-0", "big-1"}, 60)
        assert docker.seen.count("POST /containers/manyeyes-big-1-1/restart") == 1
        assert "POST /containers/manyeyes-big-0-1/restart" not in docker.seen


def test_an_engine_that_answers_health_while_its_core_hangs_is_restarted(tmp_path: Path) -> None:
    doc = document(None, engines=2, restart_hung_after_s=5, stalled_after_s=2, canary_timeout_s=2, warm_up_timeout_s=4)
    with with_docker(tmp_path, doc, engine_flags=FAULTY) as (running, docker):
        running.all_up({"big-0", "big-1"})
        url = f"http://127.0.0.1:{running.ports['big-1']}/emulator/faults"
        httpx.post(url, json={"kind": "hung", "health": True}).raise_for_status()
        with chat_load(running.url, "big", users=4):
            eventually(lambda: "POST /containers/manyeyes-big-1-1/restart" in docker.seen, 60, 0.3, "it is restarted")
            running.all_up({"big-0", "big-1"}, 60)
        assert docker.seen.count("POST /containers/manyeyes-big-1-1/restart") == 1


def test_a_gpu_is_handed_from_one_pool_to_another_and_never_taken_by_both(tmp_path: Path) -> None:
    doc = document({"target": {"in_flight": 50}}, engines=2)
    doc["pools"].append({"name": "small", "model": "org/Small-VL", "scaling": QUICK | {"target": {"in_flight": 4}}})
    doc["engines"] += [
        {"name": "small-0", "pool": "small"},
        {"name": "late-small-1", "pool": "small", "time_shares_with": "big-1"},
    ]
    with with_docker(tmp_path, doc, engine_flags=SLOW_ANSWERS) as (running, docker):
        both = ("manyeyes-big-1-1", "manyeyes-late-small-1-1")

        def once(container: str, action: str, act: Any = docker.act) -> None:
            other = both[1 - both.index(container)] if container in both else None
            assert action != "start" or other is None or docker.states[other] != "running", docker.states
            act(container, action)

        docker.act = once
        # No request to big: the idle engine whose GPU is shared is then stopped first.
        running.all_up({"big-0", "big-1"})
        running.answers_from("small", {"small-0"})
        with chat_load(running.url, "small", users=10) as people:
            eventually(lambda: stages(running, "small")["late-small-1"] == "serving", 90, 0.3, "small has the GPU")
            assert docker.states[both[0]] == "exited", docker.states
        assert set(people.outcomes) == {"answered"}, people.outcomes
        # It is free once `small` does not need it, and `big` gets it when somebody asks for it.
        eventually(lambda: stages(running, "small")["late-small-1"] == "stopped", 90, 0.3, "small gave it back")
        assert by_hand(running, "2", "--pool=big").returncode == 0
        assert docker.states == {
            "manyeyes-big-0-1": "running",
            "manyeyes-big-1-1": "running",
            "manyeyes-small-0-1": "running",
            "manyeyes-late-small-1-1": "exited",
        }


def test_without_docker_everything_else_goes_on_and_a_sentence_says_why_nothing_scales(tmp_path: Path) -> None:
    with local_cluster(with_admin_key(tmp_path), document({"target": {"in_flight": 50}}, engines=2)) as running:
        running.answers_from("big", {"big-0", "big-1"})
        eventually(lambda: scaling(running)["problem"], 20)
        assert "the filter in front of Docker's socket does not answer" in scaling(running)["problem"]
        assert running.ask("big").status_code == 200
        assert set(stages(running).values()) == {"serving"}
