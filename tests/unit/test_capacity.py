"""How many requests an engine is given."""

from dataclasses import replace
from typing import Any

import pytest

from manyeyes.config.engines import Engine, capacities, in_flight, max_num_seqs
from manyeyes.config.placement import PlacedCluster
from manyeyes.config.pools import Pool
from manyeyes.controller.config_sync.effective_config import NO_REGISTRATIONS, Registrations, with_registrations
from manyeyes.render.nginx.naming import CONTAINER_PATHS
from manyeyes.render.nginx.pools import pools_conf
from tests.placed import placed

POOL = Pool(name="a", model="org/A")


def gpu(**fields: Any) -> Engine:
    return Engine(**{"name": "gpu-0", "pool": "a", "gpus": ("0",), **fields})


def test_an_unknown_gpu_counts_as_one_of_24_gib() -> None:
    assert max_num_seqs(POOL, gpu()) == max_num_seqs(POOL, gpu(gpu_memory_gb=24)) == 48


def test_half_a_gpu_counts_half_and_two_gpus_count_twice() -> None:
    assert max_num_seqs(POOL, gpu(gpu_memory_gb=80, gpu_fraction=0.5)) == 128
    assert max_num_seqs(POOL, gpu(gpu_memory_gb=40, gpus=("0", "1"))) == 256


def test_what_the_pool_says_wins() -> None:
    assert max_num_seqs(POOL.model_copy(update={"max_num_seqs": 7}), gpu(gpu_memory_gb=80)) == 7
    assert in_flight(POOL.model_copy(update={"max_in_flight": 5}), gpu(gpu_memory_gb=80)) == 5


def test_an_engine_is_given_as_many_again_as_it_runs_and_on_cpu_three_times_as_many() -> None:
    assert in_flight(POOL, gpu(gpu_memory_gb=24)) == 96
    assert in_flight(POOL, Engine(name="cpu-0", pool="a", flavour="cpu")) == 64


def test_capacities_are_of_the_pools_own_engines() -> None:
    others = Engine(name="gpu-9", pool="b", gpus=("9",))
    small, large = gpu(name="small", gpu_memory_gb=16), gpu(name="large", gpu_memory_gb=80)
    assert capacities(POOL, (small, others, large)) == {"small": 48, "large": 512}


MIXED = """
pools:
  - {name: big, model: m}
  - {name: lonely, model: n}
engines:
  - {name: a, pool: big, address: "a:1", gpu_memory_gb: 80}
  - {name: b, pool: big, address: "b:1", gpu_memory_gb: 24}
"""


def elsewhere(name: str, gpu_memory_gb: float | None = None, pool: str = "big") -> Engine:
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
    cluster = with_registrations(written, Registrations(engines=(elsewhere("c", gpu_memory_gb),)))
    assert capacity(cluster, "c") == expected
    assert pools_conf(cluster, CONTAINER_PATHS) == pools_conf(written, CONTAINER_PATHS)


def test_in_a_pool_without_written_engines_all_have_the_same_capacity() -> None:
    written = placed(MIXED)
    first = Registrations(engines=(elsewhere("c", 80, "lonely"),))
    second = replace(first, engines=(*first.engines, elsewhere("d", 8, "lonely")))
    assert pools_conf(with_registrations(written, first), CONTAINER_PATHS) == pools_conf(
        with_registrations(written, second), CONTAINER_PATHS
    )
    assert (
        capacity(with_registrations(written, second), "c") == capacity(with_registrations(written, second), "d") == 96
    )


def test_a_registered_pool_says_itself_how_much_its_engines_take() -> None:
    pool = Pool(name="new", model="n", max_in_flight=7)
    cluster = with_registrations(placed(MIXED), Registrations(pools=(pool,), engines=(elsewhere("c", 80, "new"),)))
    assert capacity(cluster, "c") == 7


def test_a_registered_pools_fallback_passes_over_pools_that_nobody_serves() -> None:
    pool = Pool(name="new", model="n", fallback="middle")
    middle = Pool(name="middle", model="n", fallback="big")
    registered = replace(NO_REGISTRATIONS, pools=(pool, middle), engines=(elsewhere("c", pool="new"),))
    cluster = with_registrations(placed(MIXED), registered)
    assert cluster.pool("new").fallback == "big"
    alone = with_registrations(
        placed(MIXED), replace(registered, pools=(pool.model_copy(update={"fallback": "lonely"}),))
    )
    assert alone.pool("new").fallback is None
