"""On Kubernetes: engines as Services name them take the place of those that are written."""

from manyeyes.config.loader import parse
from manyeyes.config.placement import Inventory, PlacedCluster, place_engines
from manyeyes.controller.config_sync.effective_config import EffectiveConfig, with_discovered
from manyeyes.controller.membership.service_discovery import describe_changes, engines_at

TEXT = """
pools:
  - {name: big, model: org/Big, flavours: [emulated], fallback: small}
  - {name: small, model: org/Small, flavours: [emulated]}
"""


def written() -> PlacedCluster:
    return place_engines(parse(TEXT), Inventory(flavour="emulated"))


def test_found_engines_take_the_place_of_written_ones_and_a_pool_without_any_keeps_those() -> None:
    cluster = written()
    found = {"big": engines_at(cluster, "big", ["10.0.0.7"], 8000), "small": ()}
    names = [(engine.name, engine.pool, engine.address) for engine in with_discovered(cluster, found).engines]
    assert names == [("emu-2", "small", None), ("10-0-0-7", "big", "10.0.0.7:8000")]


def test_a_found_engine_is_like_the_pools_written_ones() -> None:
    cluster = written()
    (engine,) = engines_at(cluster, "big", ["10.0.0.7"], 8000)
    assert (engine.flavour, engine.max_in_flight, engine.port) == ("emulated", 96, 8000)


def test_listeners_hear_of_found_engines_and_a_new_file_keeps_them() -> None:
    in_force = EffectiveConfig(written())
    heard: list[set[str]] = []
    in_force.listen(lambda cluster: heard.append({engine.name for engine in cluster.engines}))
    in_force.apply_discovered({"big": engines_at(in_force.written, "big", ["10.0.0.7"], 8000)})
    in_force.apply_written(written())
    assert heard == [{"emu-2", "10-0-0-7"}] * 2


def test_each_change_is_one_sentence() -> None:
    cluster = written()
    one = {"big": engines_at(cluster, "big", ["10.0.0.1", "10.0.0.2"], 8000)}
    other = {"big": engines_at(cluster, "big", ["10.0.0.2", "10.0.0.3"], 8000)}
    assert describe_changes({}, one) == ["the Service big names 10-0-0-1, 10-0-0-2: 2 in all"]
    assert describe_changes(one, other) == ["the Service big names 10-0-0-3 and names no more 10-0-0-1: 2 in all"]
    assert describe_changes(other, other) == []
