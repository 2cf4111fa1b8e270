"""The small parts of scaling: what is observed, kept, asked of the GPUs' exporter, and taken for hung."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from manyeyes.cli.up import engines_to_start
from manyeyes.config.engines import Engine
from manyeyes.controller.autoscaling import signals, store
from manyeyes.controller.autoscaling.actuators import ContainerActuator, is_hung
from manyeyes.controller.autoscaling.autoscaler import Autoscaler
from manyeyes.controller.autoscaling.demand import PoolLoad
from manyeyes.controller.autoscaling.policy import with_default_target
from manyeyes.controller.autoscaling.reconcile import LifecycleStage
from manyeyes.controller.autoscaling.signals import PoolSignals
from manyeyes.controller.health import state_machine, states
from manyeyes.controller.health.states import EngineState, ProbeResult
from manyeyes.controller.health.vllm_metrics import EngineLoad
from manyeyes.controller.membership.fleet import Fleet
from manyeyes.controller.membership.membership_store import FleetMember
from manyeyes.controller.state_store import StateStore
from manyeyes.controller.telemetry.access_log_receiver import AccessLog
from tests.placed import placed

CLUSTER = """
pools: [{name: big, model: m, scaling: {}}, {name: small, model: n, scaling: {}}]
engines:
  - {name: a, pool: big, gpus: [0]}
  - {name: b, pool: big, gpus: [1]}
  - {name: c, pool: small, gpus: [2]}
  - {name: d, pool: small, gpus: [1], time_shares_with: b}
"""


def members(*loads: EngineLoad | None) -> list[FleetMember]:
    fleet = Fleet(placed(CLUSTER))
    found = list(fleet.members.values())[: len(loads)]
    for member, load in zip(found, loads, strict=True):
        member.load = load
    return found


def load(in_flight: int, waited_s: float = 0, left: float = 0, age_s: float = 0) -> EngineLoad:
    return EngineLoad(time.monotonic() - age_s, in_flight, queue_s_total=waited_s, queue_requests_total=left)


def observed(serving: list[FleetMember], draining: list[FleetMember], observer: PoolSignals | None = None) -> PoolLoad:
    requests = AccessLog(Fleet(placed(CLUSTER)))
    return (observer or PoolSignals("big")).collect(5, serving, [*serving, *draining], requests, {"0": 0.5, "1": 0.9})


def test_requests_in_flight_are_those_of_all_engines_the_draining_ones_too() -> None:
    a, b, c = members(load(4), load(6), load(3))
    assert observed([a, b], [c]).in_flight == 13


def test_an_engine_that_says_nothing_counts_as_the_others_do() -> None:
    a, b, c = members(load(4), None, load(8))
    assert observed([a, b, c], []).in_flight == 18
    old = members(load(4, age_s=100))
    assert observed(old, []).in_flight is None


def test_queue_time_is_the_average_since_the_look_before() -> None:
    observer = PoolSignals("big")
    a, b = members(load(1, 10, 5), load(1, 0, 0))
    assert observed([a, b], [], observer).queue_time_s is None
    a.load, b.load = load(1, 16, 7), load(1, 2, 2)
    assert observed([a, b], [], observer).queue_time_s == 2
    a.load = load(1, 0, 0)  # another process
    assert observed([a, b], [], observer).queue_time_s is None


class SlowDocker(ContainerActuator):
    """Its list of containers is made before a stop and arrives after it, as Docker's may."""

    def __init__(self) -> None:
        self.listed, self.arrives = asyncio.Event(), asyncio.Event()

    async def find_stopped(self, engines: Sequence[Engine]) -> dict[str, bool]:
        listed = {engine.name: False for engine in engines}
        self.listed.set()
        await self.arrives.wait()
        return listed

    async def stop(self, engine: Engine) -> None:
        await self.listed.wait()


async def test_an_engine_that_is_stopped_while_containers_are_listed_is_not_taken_for_one_that_was_started(
    tmp_path: Path,
) -> None:
    fleet, docker = Fleet(placed(CLUSTER)), SlowDocker()
    async with httpx.AsyncClient() as client:
        scaler = Autoscaler(fleet, AccessLog(fleet), StateStore(tmp_path), client, docker)
        scaler.lifecycle.drain("a", "test")
        scaler.lifecycle.stop("a")
        refresh = asyncio.create_task(scaler.lifecycle.refresh_stopped())
        await docker.listed.wait()
        await asyncio.gather(*(task for _, task in scaler.lifecycle._moving.values()))
        docker.arrives.set()
        await refresh
        scaler.lifecycle.follow_members(0.0)
    assert scaler.lifecycle.stage_of("a") is LifecycleStage.STOPPED
    assert fleet.members["a"].health.at_rest


def test_gpu_use_is_the_average_of_the_pools_gpus() -> None:
    a, b = members(load(1), load(1))
    assert observed([a, b], []).gpu == pytest.approx(0.7)


def test_the_exporters_text_is_read_by_number_and_by_uuid() -> None:
    text = (
        "# HELP DCGM_FI_DEV_GPU_UTIL GPU utilization (in %).\n"
        'DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-aa",device="nvidia0"} 37\n'
        'DCGM_FI_DEV_GPU_UTIL{gpu="1",UUID="GPU-bb"} 100\n'
        'DCGM_FI_DEV_GPU_UTIL{gpu="2"} nonsense\nDCGM_FI_DEV_GPU_TEMP{gpu="3"} 50\n'
    )
    use = signals.parse_gpu_utilization(text)
    assert use == {"0": 0.37, "GPU-aa": 0.37, "1": 1.0, "GPU-bb": 1.0}
    assert signals.average_utilization(use, ["0", "GPU-bb"]) == pytest.approx(0.685)
    assert signals.average_utilization(use, ["0", "9"]) is None


def test_what_scaling_remembers_is_read_again(tmp_path: Path) -> None:
    kept = StateStore(tmp_path)
    wanted = store.AutoscalerState({"big": 2}, {"big": 1}, {"b"}, {"a"})
    kept.write(store.DOCUMENT, wanted.document())
    assert store.load_state(kept) == wanted
    kept.write(store.DOCUMENT, {"wanted": {"big": 0}, "fixed": {}, "going": [], "resting": []})
    assert store.load_state(kept) == store.AutoscalerState()


@pytest.mark.parametrize(
    ("change", "hung"),
    [
        ({}, True),
        ({"last": ProbeResult.DEAD}, True),
        ({"last": ProbeResult.GONE}, False),  # it loads its model, or does not run
        ({"state": EngineState.SUSPECT}, False),
        ({"drained": True}, False),  # a person looks after it
        # Its API server answers /health, and its core answers no warm-up request.
        ({"state": EngineState.WARMING, "last": ProbeResult.HEALTHY, "served": True, "warm_ups_failed": 1}, True),
        ({"state": EngineState.WARMING, "last": ProbeResult.HEALTHY, "served": True}, False),  # the first still runs
        ({"state": EngineState.WARMING, "last": ProbeResult.DEAD, "warm_ups_failed": 3}, False),  # it never served
    ],
)
def test_only_an_engine_that_holds_its_port_and_is_out_for_long_is_hung(change: dict[str, object], hung: bool) -> None:
    (member,) = members(None)
    member.health = replace(states.EngineHealth(state=EngineState.DOWN, last=ProbeResult.SILENT), **change)  # type: ignore[arg-type]
    member.since = datetime.now(UTC) - timedelta(seconds=130)
    assert is_hung(member, 120) is hung
    assert not is_hung(member, 140)


def test_a_stopped_engine_is_told_as_sleeping_and_a_started_one_as_starting() -> None:
    known = state_machine.rest(states.EngineHealth(state=EngineState.DOWN, drained=True)).engine
    assert known.shown is EngineState.SLEEPING
    assert state_machine.expect(known).engine.shown is EngineState.STARTING


def test_without_a_target_a_fifth_of_what_an_engine_runs_at_once_is_taken() -> None:
    cluster = placed(CLUSTER)
    scaling = with_default_target(cluster.pools[0], cluster.engines)
    assert scaling is not None
    assert scaling.target.in_flight == 9


def test_make_up_starts_no_engine_whose_gpu_another_one_has() -> None:
    cluster = placed(CLUSTER)
    assert engines_to_start(cluster, running=set()) == ["a", "b", "c"]
    assert engines_to_start(cluster, running={"d"}) == ["a", "c"]
