"""What is written and what is registered make the cluster in force."""

from dataclasses import replace

import pytest

from manyeyes.config.engines import Engine, in_flight
from manyeyes.config.loader import parse
from manyeyes.config.placement import Inventory, PlacedCluster, place_engines
from manyeyes.config.pools import Pool
from manyeyes.controller.config_sync.effective_config import (
    NO_REGISTRATIONS,
    ChangeRejected,
    EffectiveConfig,
    Registrations,
    with_discovered,
    with_registrations,
)
from manyeyes.controller.membership.service_discovery import describe_changes, engines_at
from manyeyes.render.nginx.naming import CONTAINER_PATHS
from manyeyes.render.nginx.pools import pools_conf
from tests.placed import placed


def written() -> PlacedCluster:
    return placed("pools: [{name: big, model: m}]\nengines: [{name: a, pool: big, address: 'h:1', flavour: emulated}]")


def engine(name: str, pool: str = "big") -> Engine:
    return Engine(name=name, pool=pool, address=f"{name}:8000", flavour="emulated")


def test_a_registered_engine_stands_beside_the_written_ones() -> None:
    cluster = with_registrations(written(), Registrations(engines=(engine("b"), engine("a"))))
    assert [(one.name, one.host) for one in cluster.engines] == [("a", "h"), ("b", "b")]


def test_a_weight_said_at_run_time_wins() -> None:
    assert with_registrations(written(), Registrations(weights=(("a", 3),))).engines[0].weight == 3


def test_listeners_hear_of_every_change_and_of_no_refused_one() -> None:
    held = EffectiveConfig(written())
    heard: list[PlacedCluster] = []
    held.listen(heard.append)
    held.apply_registrations(Registrations(engines=(engine("b"),)))
    with pytest.raises(ChangeRejected) as refused:
        held.apply_registrations(Registrations(engines=(engine("c", pool="nowhere"),)))
    assert refused.value.problems == ["engines[c].pool: expected the name of a pool, got 'nowhere'; the pools are big"]
    assert [one.name for one in held.cluster.engines] == ["a", "b"]
    assert heard == [held.cluster]
    held.apply_registrations(NO_REGISTRATIONS)
    assert held.cluster == held.written


def test_a_pool_that_registered_engines_need_cannot_go() -> None:
    small = Pool(name="small", model="n")
    held = EffectiveConfig(written(), Registrations(pools=(small,), engines=(engine("b", pool="small"),)))
    with pytest.raises(ChangeRejected):
        held.apply_registrations(replace(held.registered, pools=()))


# Engines come and go by DNS alone: whatever is registered, the gateway's files stay as they are

MIXED = """
pools:
  - {name: big, model: m}
  - {name: lonely, model: n}
engines:
  - {name: a, pool: big, address: "a:1", gpu_memory_gb: 80}
  - {name: b, pool: big, address: "b:1", gpu_memory_gb: 24}
"""


def sized(name: str, gpu_memory_gb: float | None = None, pool: str = "big") -> Engine:
    return Engine(name=name, pool=pool, address=f"{name}:8000", gpu_memory_gb=gpu_memory_gb)


def capacity(cluster: PlacedCluster, name: str) -> int:
    one = next(engine for engine in cluster.engines if engine.name == name)
    return in_flight(cluster.pool(one.pool), one)


@pytest.mark.parametrize(
    ("gpu_memory_gb", "expected"), [(141.0, 512), (80.0, 512), (48.0, 96), (24.0, 96), (None, 96), (8.0, 96)]
)
def test_a_registered_engine_takes_a_capacity_that_the_gateway_has_a_name_for(
    gpu_memory_gb: float | None, expected: int
) -> None:
    written = placed(MIXED)
    assert [capacity(written, name) for name in "ab"] == [512, 96]
    cluster = with_registrations(written, Registrations(engines=(sized("c", gpu_memory_gb),)))
    assert capacity(cluster, "c") == expected
    assert pools_conf(cluster, CONTAINER_PATHS) == pools_conf(written, CONTAINER_PATHS)


def test_in_a_pool_without_written_engines_all_have_the_same_capacity() -> None:
    written = placed(MIXED)
    first = Registrations(engines=(sized("c", 80, "lonely"),))
    second = replace(first, engines=(*first.engines, sized("d", 8, "lonely")))
    assert pools_conf(with_registrations(written, first), CONTAINER_PATHS) == pools_conf(
        with_registrations(written, second), CONTAINER_PATHS
    )
    assert (
        capacity(with_registrations(written, second), "c") == capacity(with_registrations(written, second), "d") == 96
    )


def test_a_registered_pool_says_itself_how_much_its_engines_take() -> None:
    pool = Pool(name="new", model="n", max_in_flight=7)
    cluster = with_registrations(placed(MIXED), Registrations(pools=(pool,), engines=(sized("c", 80, "new"),)))
    assert capacity(cluster, "c") == 7


def test_a_registered_pools_fallback_passes_over_pools_that_nobody_serves() -> None:
    pool = Pool(name="new", model="n", fallback="middle")
    middle = Pool(name="middle", model="n", fallback="big")
    registered = replace(NO_REGISTRATIONS, pools=(pool, middle), engines=(sized("c", pool="new"),))
    cluster = with_registrations(placed(MIXED), registered)
    assert cluster.pool("new").fallback == "big"
    alone = with_registrations(
        placed(MIXED), replace(registered, pools=(pool.model_copy(update={"fallback": "lonely"}),))
    )
    assert alone.pool("new").fallback is None


# On Kubernetes engines as Services name them take the place of those that are written

DISCOVERED = """
pools:
  - {name: big, model: org/Big, flavours: [emulated], fallback: small}
  - {name: small, model: org/Small, flavours: [emulated]}
"""


def on_kubernetes() -> PlacedCluster:
    return place_engines(parse(DISCOVERED), Inventory(flavour="emulated"))


def test_found_engines_take_the_place_of_written_ones_and_a_pool_without_any_keeps_those() -> None:
    cluster = on_kubernetes()
    found = {"big": engines_at(cluster, "big", ["10.0.0.7"], 8000), "small": ()}
    names = [(engine.name, engine.pool, engine.address) for engine in with_discovered(cluster, found).engines]
    assert names == [("emu-2", "small", None), ("10-0-0-7", "big", "10.0.0.7:8000")]


def test_a_found_engine_is_like_the_pools_written_ones() -> None:
    cluster = on_kubernetes()
    (engine,) = engines_at(cluster, "big", ["10.0.0.7"], 8000)
    assert (engine.flavour, engine.max_in_flight, engine.port) == ("emulated", 96, 8000)


def test_listeners_hear_of_found_engines_and_a_new_file_keeps_them() -> None:
    in_force = EffectiveConfig(on_kubernetes())
    heard: list[set[str]] = []
    in_force.listen(lambda cluster: heard.append({engine.name for engine in cluster.engines}))
    in_force.apply_discovered({"big": engines_at(in_force.written, "big", ["10.0.0.7"], 8000)})
    in_force.apply_written(on_kubernetes())
    assert heard == [{"emu-2", "10-0-0-7"}] * 2


def test_each_change_is_one_sentence() -> None:
    cluster = on_kubernetes()
    one = {"big": engines_at(cluster, "big", ["10.0.0.1", "10.0.0.2"], 8000)}
    other = {"big": engines_at(cluster, "big", ["10.0.0.2", "10.0.0.3"], 8000)}
    assert describe_changes({}, one) == ["the Service big added 10-0-0-1, 10-0-0-2: 2 in total"]
    assert describe_changes(one, other) == ["the Service big added 10-0-0-3 and removed 10-0-0-1: 2 in total"]
    assert describe_changes(other, other) == []
