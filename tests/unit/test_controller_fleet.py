"""The fleet follows the cluster in force."""

import asyncio
import contextlib

from config.cluster import Cluster
from config.load import parse
from controller import state
from controller.fleet import Fleet
from controller.state import Look, State


def cluster(*engines: str) -> Cluster:
    return parse("pools: [{name: big, model: m}, {name: small, model: n}]\nengines:\n" + "\n".join(engines))


def engine(name: str, address: str = "127.0.0.1:9", pool: str = "big", weight: int = 1) -> str:
    return f"- {{name: {name}, pool: {pool}, address: '{address}', flavour: emulated, weight: {weight}}}"


def with_all_up(fleet: Fleet) -> Fleet:
    for member in fleet.members.values():
        member.known = state.warmed(state.look(member.known, Look.HEALTHY, fleet.cluster.controller).engine).engine
        member.address = "127.0.0.1"
    return fleet


def test_an_engine_that_stays_keeps_its_state_and_takes_its_new_weight() -> None:
    fleet = with_all_up(Fleet(cluster(engine("a"), engine("b"))))
    fleet.apply(cluster(engine("b", weight=3), engine("c")))
    assert list(fleet.members) == ["b", "c"]
    assert fleet.members["b"].known.state is State.UP
    assert fleet.members["b"].engine.weight == 3
    assert fleet.members["c"].known.state is State.UNKNOWN


def test_another_process_under_the_same_name_begins_anew() -> None:
    fleet = with_all_up(Fleet(cluster(engine("a"))))
    fleet.apply(cluster(engine("a", address="127.0.0.1:10")))
    assert fleet.members["a"].known.state is State.UNKNOWN


def test_a_held_engine_gets_nothing_and_says_who_wanted_it() -> None:
    fleet = with_all_up(Fleet(cluster(engine("a"), engine("b"))))
    fleet.hold("a", "drained by ops")
    assert [member.engine.name for member in fleet.serving("big") or []] == ["b"]
    assert fleet.members["a"].known.shown is State.DRAINING
    assert fleet.events[-1]["sentence"] == "a is held back: drained by ops"
    fleet.hold("b", "drained by ops")
    assert fleet.serving("big") == []
    fleet.release("a", "resumed by ops")
    assert [member.engine.name for member in fleet.serving("big") or []] == ["a"]


async def looked_at(fleet: Fleet) -> None:
    async with asyncio.timeout(10):
        while any(member.known.state is State.UNKNOWN for member in fleet.members.values()):  # noqa: ASYNC110 it has no event
            await asyncio.sleep(0.01)


def test_engines_that_come_and_go_are_watched_and_left_alone() -> None:
    async def watched() -> tuple[set[str], set[str]]:
        fleet = Fleet(cluster(engine("a"), engine("b")))
        watching = asyncio.create_task(fleet.watch())
        await looked_at(fleet)
        fleet.apply(cluster(engine("b"), engine("c")))
        await looked_at(fleet)
        going = {name for name, task in fleet._watching.items() if not task.done()}
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        return going, set(fleet.members)

    assert asyncio.run(watched()) == ({"b", "c"}, {"b", "c"})
