"""How many requests an engine is given."""

from typing import Any

from manyeyes.config.engines import Engine, capacities, in_flight, max_num_seqs
from manyeyes.config.pools import Pool

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
