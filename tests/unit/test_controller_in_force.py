"""What is written and what is registered make the cluster in force."""

from dataclasses import replace

import pytest

from manyeyes.config.cluster import Cluster
from manyeyes.config.engines import Engine
from manyeyes.config.loader import parse
from manyeyes.config.pools import Pool
from manyeyes.controller.config_sync.effective_config import NOTHING, InForce, Refused, Registered, merged


def written() -> Cluster:
    return parse("pools: [{name: big, model: m}]\nengines: [{name: a, pool: big, address: 'h:1', flavour: emulated}]")


def engine(name: str, pool: str = "big") -> Engine:
    return Engine(name=name, pool=pool, address=f"{name}:8000", flavour="emulated")


def test_a_registered_engine_stands_beside_the_written_ones() -> None:
    cluster = merged(written(), Registered(engines=(engine("b"), engine("a"))))
    assert [(one.name, one.host) for one in cluster.explicit_engines] == [("a", "h"), ("b", "b")]


def test_a_weight_said_at_run_time_wins() -> None:
    assert merged(written(), Registered(weights=(("a", 3),))).explicit_engines[0].weight == 3


def test_listeners_hear_of_every_change_and_of_no_refused_one() -> None:
    held = InForce(written())
    heard: list[Cluster] = []
    held.listen(heard.append)
    held.take_registered(Registered(engines=(engine("b"),)))
    with pytest.raises(Refused) as refused:
        held.take_registered(Registered(engines=(engine("c", pool="nowhere"),)))
    assert refused.value.problems == ["engines[c].pool is 'nowhere', which is not a pool; there are big"]
    assert [one.name for one in held.cluster.explicit_engines] == ["a", "b"]
    assert heard == [held.cluster]
    held.take_registered(NOTHING)
    assert held.cluster == held.written


def test_a_pool_that_registered_engines_need_cannot_go() -> None:
    small = Pool(name="small", model="n")
    held = InForce(written(), Registered(pools=(small,), engines=(engine("b", pool="small"),)))
    with pytest.raises(Refused):
        held.take_registered(replace(held.registered, pools=()))
