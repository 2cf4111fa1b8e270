"""On Kubernetes: engines as Services name them take the place of those that are written."""

from config.cluster import Cluster
from config.inventory import Inventory
from config.layout import lay_out
from config.load import parse
from controller.in_force import InForce, placed
from controller.services import changes, engines_at, named

TEXT = """
pools:
  - {name: big, model: org/Big, flavours: [emulated], fallback: small}
  - {name: small, model: org/Small, flavours: [emulated]}
"""


def written() -> Cluster:
    return lay_out(parse(TEXT), Inventory(flavour="emulated"))


def test_found_engines_take_the_place_of_written_ones_and_a_pool_without_any_keeps_those() -> None:
    cluster = written()
    found = {"big": engines_at(cluster, "big", {"10-0-0-7": "10.0.0.7:8000"}), "small": ()}
    names = [(engine.name, engine.pool, engine.address) for engine in placed(cluster, found).explicit_engines]
    assert names == [("emu-2", "small", None), ("10-0-0-7", "big", "10.0.0.7:8000")]


def test_a_found_engine_is_like_the_pools_written_ones() -> None:
    cluster = written()
    (engine,) = engines_at(cluster, "big", {"10-0-0-7": "10.0.0.7:8000"})
    assert (engine.flavour, engine.max_in_flight, engine.port) == ("emulated", 96, 8000)


def test_listeners_hear_of_found_engines_and_a_new_file_keeps_them() -> None:
    in_force = InForce(written())
    heard: list[set[str]] = []
    in_force.listen(lambda cluster: heard.append({engine.name for engine in cluster.explicit_engines}))
    in_force.take_found({"big": engines_at(in_force.written, "big", {"10-0-0-7": "10.0.0.7:8000"})})
    in_force.take_written(written())
    assert heard == [{"emu-2", "10-0-0-7"}] * 2


def test_a_pod_is_called_as_its_service_calls_it_or_by_its_address() -> None:
    assert named("10-244-1-17", "10.244.1.17") == "10-244-1-17"
    assert named("qwen3-vl-8b-0", "10.244.1.17") == "qwen3-vl-8b-0"
    assert named("a-name-that-is-longer-than-forty-characters", "10.244.1.17") == "10-244-1-17"


def test_each_change_is_one_sentence() -> None:
    cluster = written()
    one = {"big": engines_at(cluster, "big", {"a": "10.0.0.1:8000", "b": "10.0.0.2:8000"})}
    other = {"big": engines_at(cluster, "big", {"b": "10.0.0.2:8000", "c": "10.0.0.3:8000"})}
    assert changes({}, one) == ["the Service big names a, b: 2 in all"]
    assert changes(one, other) == ["the Service big names c and names no more a: 2 in all"]
    assert changes(other, other) == []
