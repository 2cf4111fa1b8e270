"""Which pool is the one that had another name before, and how the gateway asks its engines."""

from manyeyes.config.placement import PlacedCluster
from manyeyes.controller.membership.pool_renames import (
    FORMER_FOR_S,
    PoolLineage,
    next_lineage,
    parse_lineage,
    pool_naming,
)
from tests.placed import placed


def cluster(pools: str, **engines: str) -> PlacedCluster:
    """`pools` as name:model, engines by name (which is where they are found) with their pool."""
    listed = ", ".join(f"{{name: {name}, model: {model}}}" for name, model in (one.split(":") for one in pools.split()))
    rows = "".join(f"- {{name: {name}, pool: {pool}, flavour: emulated}}\n" for name, pool in engines.items())
    return placed(f"pools: [{listed}]\nengines:\n{rows}")


TWO = cluster("a:M b:N", e0="a", e1="a", e2="b")
BEFORE = next_lineage(PoolLineage(), TWO, 0)


def upstreams(after: PlacedCluster) -> dict[str, str]:
    return dict(next_lineage(BEFORE, after, 0).upstreams)


def test_a_pool_keeps_its_upstream_under_another_name() -> None:
    assert BEFORE.upstreams == {"a": "a", "b": "b"}
    assert upstreams(cluster("x:M b:N", e0="x", e1="x", e2="b")) == {"x": "a", "b": "b"}
    assert upstreams(cluster("x:M y:N", e0="x", e1="x", e2="y")) == {"x": "a", "y": "b"}
    # Engines that are others, as well as the pool's name: the model tells.
    assert upstreams(cluster("x:M b:N", f0="x", f1="x", e2="b")) == {"x": "a", "b": "b"}


def test_names_that_change_places_leave_each_upstream_with_its_engines() -> None:
    assert upstreams(cluster("b:M a:N", e0="b", e1="b", e2="a")) == {"b": "a", "a": "b"}
    assert upstreams(cluster("b:M c:N", e0="b", e1="b", e2="c")) == {"b": "a", "c": "b"}
    # A new pool under a name that moved on.
    assert upstreams(cluster("x:M a:C b:N", e0="x", e1="x", e9="a", e2="b")) == {"x": "a", "a": "a_2", "b": "b"}


def test_a_pool_that_gives_most_of_its_engines_away_stays_what_it_is() -> None:
    assert upstreams(cluster("a:M b:N", e0="b", e1="a", e2="b")) == {"a": "a", "b": "b"}
    assert upstreams(cluster("a:M b:N", e0="a", e1="b", e2="b", e3="a")) == {"a": "a", "b": "b"}


def test_an_old_name_is_answered_until_all_engines_accept_the_new_one_and_no_connection_is_older() -> None:
    renamed = cluster("x:M b:N", e0="x", e1="x", e2="b")
    lineage = next_lineage(BEFORE, renamed, 100)
    old, new = frozenset({"a", "M", "auto"}), frozenset({"x", "M", "auto"})
    found = pool_naming(renamed, lineage, {"e0": old, "e1": old}, 999)
    assert (found.upstreams, found.requested_names, found.former) == ({"x": "a"}, {"x": "M"}, {"a": "x"})
    assert pool_naming(renamed, lineage, {"e0": new, "e1": old}, 999).requested_names == {"x": "M"}
    found = pool_naming(renamed, lineage, {"e0": new, "e1": new}, 100 + FORMER_FOR_S - 1)
    assert (found.requested_names, found.former, found.until_s) == ({}, {"a": "x"}, 100 + FORMER_FOR_S)
    found = pool_naming(renamed, lineage, {"e0": new, "e1": new}, 100 + FORMER_FOR_S)
    assert (found.former, found.until_s) == ({}, None)


def test_what_was_before_outlives_the_controller() -> None:
    lineage = next_lineage(BEFORE, cluster("x:M b:N", e0="x", e1="x", e2="b"), 5)
    assert parse_lineage(lineage.document()) == lineage
    documents: tuple[object, ...] = (None, [], {"upstreams": 3}, {"upstreams": {"a": "a"}}, "x")
    for broken in documents:
        assert parse_lineage(broken) == PoolLineage()
