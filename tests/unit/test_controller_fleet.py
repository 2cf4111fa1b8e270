"""The fleet follows the cluster in force."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from manyeyes.config.placement import PlacedCluster
from manyeyes.controller import metrics
from manyeyes.controller.health import state_machine
from manyeyes.controller.health.states import EngineState, Observation, ProbeResult
from manyeyes.controller.health.vllm_metrics import EngineLoad
from manyeyes.controller.membership.fleet import Fleet
from manyeyes.controller.state_store import StateStore
from tests.placed import placed


def cluster(*engines: str) -> PlacedCluster:
    return placed("pools: [{name: big, model: m}, {name: small, model: n}]\nengines:\n" + "\n".join(engines))


def engine(name: str, address: str = "127.0.0.1:9", pool: str = "big", weight: int = 1) -> str:
    return f"- {{name: {name}, pool: {pool}, address: '{address}', flavour: emulated, weight: {weight}}}"


def with_all_up(fleet: Fleet) -> Fleet:
    for member in fleet.members.values():
        healthy = state_machine.observe(member.health, Observation(0.0, ProbeResult.HEALTHY), fleet.cluster.controller)
        fleet.apply_transition(member, state_machine.finish_warm_up(healthy.engine, 0.0))
        fleet.set_address(member, "127.0.0.1")
    return fleet


def test_an_engine_that_stays_keeps_its_state_and_takes_its_new_weight() -> None:
    fleet = with_all_up(Fleet(cluster(engine("a"), engine("b"))))
    fleet.apply(cluster(engine("b", weight=3), engine("c")))
    assert list(fleet.members) == ["b", "c"]
    assert fleet.members["b"].health.state is EngineState.UP
    assert fleet.members["b"].engine.weight == 3
    assert fleet.members["c"].health.state is EngineState.UNKNOWN


def test_another_process_under_the_same_name_begins_anew() -> None:
    fleet = with_all_up(Fleet(cluster(engine("a"))))
    fleet.apply(cluster(engine("a", address="127.0.0.1:10")))
    assert fleet.members["a"].health.state is EngineState.UNKNOWN


RENAMED = "pools: [{name: large, model: m}, {name: small, model: n}]\nengines:\n"


def test_an_engine_goes_on_when_its_pool_or_itself_gets_another_name() -> None:
    fleet = with_all_up(Fleet(cluster(engine("a"), engine("b", "127.0.0.1:10"))))
    fleet.drain("b", "drained by ops")
    rows = [engine("a", pool="large"), engine("c", "127.0.0.1:10", pool="large")]
    fleet.apply(placed(RENAMED + "\n".join(rows)))
    assert [member.engine.name for member in fleet.serving("large") or []] == ["a"]
    assert fleet.members["c"].health.shown is EngineState.DRAINING
    # nginx asks by the name that it knows.
    assert fleet.serving_upstream("big") == ("large", fleet.serving("large"))


def test_a_pool_that_is_gone_is_answered_for_until_nginx_has_the_new_files() -> None:
    fleet = with_all_up(Fleet(cluster(engine("a"), engine("b", "127.0.0.1:10", pool="small"))))
    fleet.apply(placed("pools: [{name: big, model: m, aliases: [small]}]\nengines:\n" + engine("a")))
    found = fleet.serving_upstream("small")
    assert found
    assert [member.engine.name for member in found[1] or []] == ["b"]
    assert fleet.serving_upstream("never") is None


async def test_a_controller_that_starts_after_a_pool_was_renamed_knows_its_engines(tmp_path: Path) -> None:
    await keep_members(with_all_up(Fleet(cluster(engine("a")), StateStore(tmp_path))), tmp_path)
    again = Fleet(placed(RENAMED + engine("a", pool="large")), StateStore(tmp_path))
    assert again.members["a"].health.state is EngineState.UP
    assert again.serving_upstream("big") == ("large", [again.members["a"]])


def test_a_held_engine_gets_nothing_and_says_who_wanted_it() -> None:
    fleet = with_all_up(Fleet(cluster(engine("a"), engine("b"))))
    fleet.drain("a", "drained by ops")
    assert names(fleet) == ["b"]
    assert fleet.members["a"].health.shown is EngineState.DRAINING
    assert fleet.events[-1]["sentence"] == "a is drained: drained by ops"
    fleet.drain("b", "drained by ops")
    assert fleet.serving("big") == []
    fleet.undrain("a", "resumed by ops")
    assert names(fleet) == ["a"]


def names(fleet: Fleet) -> list[str] | None:
    serving = fleet.serving("big")
    return None if serving is None else [member.engine.name for member in serving]


@contextlib.asynccontextmanager
async def watched(fleet: Fleet) -> AsyncIterator[None]:
    watching = asyncio.create_task(fleet.watch())
    try:
        yield
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


async def becomes(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not check():  # noqa: ASYNC110 it has no event
            await asyncio.sleep(0.01)


async def keep_members(fleet: Fleet, folder: Path) -> None:
    """Runs until the members are written down."""
    async with watched(fleet):
        await becomes(lambda: (folder / "members.yaml").exists())


async def test_members_outlive_the_controller_with_their_addresses(tmp_path: Path) -> None:
    both = cluster(engine("a"), engine("b", address="127.0.0.1:10"))
    await keep_members(with_all_up(Fleet(both, StateStore(tmp_path))), tmp_path)
    again = Fleet(both, StateStore(tmp_path))
    assert names(again) == ["a", "b"]
    assert again.members["a"].address == "127.0.0.1"
    moved = cluster(engine("a"), engine("b", address="127.0.0.1:11"))
    assert Fleet(moved, StateStore(tmp_path)).members["b"].health.state is EngineState.UNKNOWN
    assert names(Fleet(both)) is None


async def test_addresses_of_another_boot_are_not_used(tmp_path: Path) -> None:
    both = cluster(engine("a"), engine("b", address="127.0.0.1:10"))
    await keep_members(with_all_up(Fleet(both, StateStore(tmp_path))), tmp_path)
    text = (tmp_path / "members.yaml").read_text()
    (tmp_path / "members.yaml").write_text("boot: another\n" + text.partition("\n")[2])
    assert names(Fleet(both, StateStore(tmp_path))) is None


def test_held_engines_stay_held_over_a_restart_of_the_controller(tmp_path: Path) -> None:
    with_all_up(Fleet(cluster(engine("a"), engine("b")), StateStore(tmp_path))).drain("a", "drained by ops")
    again = with_all_up(Fleet(cluster(engine("a"), engine("b")), StateStore(tmp_path)))
    assert names(again) == ["b"]
    assert again.members["a"].health.drain_reason == "drained by ops"
    again.undrain("a", "resumed by ops")
    assert names(with_all_up(Fleet(cluster(engine("a"), engine("b")), StateStore(tmp_path)))) == ["a", "b"]


def test_a_held_engine_that_moves_stays_held() -> None:
    fleet = with_all_up(Fleet(cluster(engine("a"), engine("b"))))
    fleet.drain("a", "drained by ops")
    fleet.apply(cluster(engine("a", address="127.0.0.1:10"), engine("b")))
    assert fleet.members["a"].health.drained


async def test_an_engine_that_is_added_while_others_are_watched_leaves_the_pool_answerable() -> None:
    fleet = with_all_up(Fleet(cluster(engine("a"))))
    async with watched(fleet):
        await asyncio.sleep(0)
        fleet.apply(cluster(engine("a"), engine("b")))
        assert names(fleet) == ["a"]


def test_series_of_an_engine_that_is_gone_are_dropped() -> None:
    def told() -> list[str]:
        return [
            sample.name
            for metric in metrics.ALL
            for family in metric.collect()
            for sample in family.samples
            if sample.labels.get("engine") == "gone-1"
        ]

    fleet = with_all_up(Fleet(cluster(engine("gone-1"), engine("b"))))
    metrics.record_load(fleet.members["gone-1"].engine, EngineLoad(0.0, 3))
    metrics.count_probe(fleet.members["gone-1"].engine, ProbeResult.HEALTHY, 0.1)
    assert "manyeyes_engine_in_flight" in told()
    fleet.apply(cluster(engine("b")))
    assert told() == []
    fleet.apply(cluster(engine("gone-1"), engine("b")))
    metrics.count_probe(fleet.members["gone-1"].engine, ProbeResult.HEALTHY, 0.1)
    assert "manyeyes_probes_total" in told()


def test_the_version_changes_with_whatever_changes_an_answer() -> None:
    fleet = with_all_up(Fleet(cluster(engine("a"), engine("b"))))
    seen = [fleet.version]

    def observe(name: str, result: ProbeResult) -> None:
        member = fleet.members[name]
        step = state_machine.observe(member.health, Observation(1.0, result), fleet.cluster.controller)
        fleet.apply_transition(member, step)

    changes: list[Callable[[], None]] = [
        lambda: fleet.drain("a", "x"),
        lambda: fleet.undrain("a", "y"),
        lambda: fleet.set_address(fleet.members["a"], "127.0.0.9"),
        lambda: fleet.apply(cluster(engine("a", weight=2), engine("b"))),
        lambda: observe("a", ProbeResult.GONE),
    ]
    for change in changes:
        change()
        assert fleet.version not in seen
        seen.append(fleet.version)
    observe("b", ProbeResult.HEALTHY)
    assert fleet.version == seen[-1]


async def test_engines_that_come_and_go_are_watched_and_left_alone() -> None:
    fleet = Fleet(cluster(engine("a"), engine("b")))

    def all_probed() -> bool:
        return all(member.health.state is not EngineState.UNKNOWN for member in fleet.members.values())

    async with watched(fleet):
        await becomes(all_probed)
        fleet.apply(cluster(engine("b"), engine("c")))
        await becomes(all_probed)
        going = {name for name, task in fleet._watching.items() if not task.done()}
    assert (going, set(fleet.members)) == ({"b", "c"}, {"b", "c"})
