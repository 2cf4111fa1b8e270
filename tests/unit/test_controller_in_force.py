"""What is written and what is registered make the cluster in force."""

from dataclasses import replace

import pytest

from manyeyes.config.engines import Engine
from manyeyes.config.placement import PlacedCluster
from manyeyes.config.pools import Pool
from manyeyes.controller.config_sync.effective_config import (
    NO_REGISTRATIONS,
    ChangeRejected,
    EffectiveConfig,
    Registrations,
    with_registrations,
)
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
    assert refused.value.problems == ["engines[c].pool is 'nowhere', which is not a pool; there are big"]
    assert [one.name for one in held.cluster.engines] == ["a", "b"]
    assert heard == [held.cluster]
    held.apply_registrations(NO_REGISTRATIONS)
    assert held.cluster == held.written


def test_a_pool_that_registered_engines_need_cannot_go() -> None:
    small = Pool(name="small", model="n")
    held = EffectiveConfig(written(), Registrations(pools=(small,), engines=(engine("b", pool="small"),)))
    with pytest.raises(ChangeRejected):
        held.apply_registrations(replace(held.registered, pools=()))
