"""The settings of scaling: what is refused, and in which words."""

import pytest

from manyeyes.config.loader import ConfigError, parse
from manyeyes.config.scaling import Keep


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return caught.value.problems


def test_counts_must_be_had() -> None:
    assert problems(
        """
        pools: [{name: a, model: m, scaling: {min: 3, max: 5, keep: [{engines: 4}]}}]
        engines: [{name: a-0, pool: a, gpus: [0]}, {name: a-1, pool: a, gpus: [1]}]
        """
    ) == [
        "pools[a].scaling.max is 5, but the pool has 2 engines",
        "pools[a].scaling.min is 3, but the pool has 2 engines",
        "pools[a].scaling.keep wants 4 engines, more than the 2 there may be",
    ]


def test_min_may_not_exceed_max() -> None:
    assert problems("pools: [{name: a, model: m, scaling: {min: 3, max: 2}}]") == [
        "pools[a].scaling.min 3 exceeds max 2"
    ]


def test_sleep_wants_a_gpu_and_a_gpu_target_wants_its_exporter() -> None:
    assert problems(
        """
        pools: [{name: a, model: m, scaling: {actuator: sleep, target: {gpu: 0.7}}}]
        engines: [{name: a-0, pool: a, flavour: cpu}]
        """
    ) == [
        "pools[a].scaling.target.gpu wants controller.gpu_metrics_url, where the GPUs' use is told",
        "pools[a].scaling.actuator is sleep, which vLLM has on GPUs only; engines[a-0] is on cpu",
    ]


def test_containers_must_be_allowed_for_their_actuator_and_a_remote_pool_has_nothing_to_scale() -> None:
    assert problems(
        """
        pools:
          - {name: a, model: m, scaling: {}}
          - {name: b, model: n, remote: {url: "https://api.example.com/v1"}, scaling: {actuator: sleep}}
        controller: {containers: false}
        """
    ) == [
        "pools[a].scaling.actuator is containers, so controller.containers must be true",
        "pools[b].scaling has no engines to start or stop: the pool is remote",
    ]


def test_times_and_zones_are_told_by_example() -> None:
    assert problems(
        "pools: [{name: a, model: m, scaling: {time_zone: Mars/Base, keep: [{engines: 1, begin: '8:00'}]}}]"
    ) == [
        "pools[a].scaling.keep[0].begin wants a time such as 08:00, found '8:00'",
        "pools[a].scaling.time_zone wants a time zone such as UTC or Europe/Berlin, found 'Mars/Base'",
    ]


def test_a_time_without_quotes_is_what_it_looks_like() -> None:
    cluster = parse("pools: [{name: a, model: m, scaling: {keep: [{engines: 1, begin: 08:00, end: 18:30}]}}]")
    scaling = cluster.pools[0].scaling
    assert scaling is not None
    assert scaling.keep == (Keep(engines=1, begin="08:00", end="18:30"),)


PAIR = """
pools:
  - {{name: a, model: m, scaling: {a}}}
  - {{name: b, model: n, scaling: {b}}}
engines:
  - {{name: a-0, pool: a, gpus: [0]}}
  - {{name: a-1, pool: a, gpus: [1]}}
  - {{name: b-0, pool: b, gpus: [2]}}
  - {{name: b-1, pool: b, gpus: [{gpu}], instead_of: {other}}}
"""


def test_two_engines_may_have_one_gpu_when_one_runs_instead_of_the_other() -> None:
    parse(PAIR.format(a="{}", b="{}", gpu=1, other="a-1"))


@pytest.mark.parametrize(
    ("a", "b", "gpu", "other", "said"),
    [
        ("null", "{}", 1, "a-1", "wants pools[a].scaling with the actuator containers"),
        ("{}", "{actuator: sleep}", 1, "a-1", "wants pools[b].scaling with the actuator containers"),
        ("{}", "{}", 0, "a-1", "may only take GPUs of that one"),
        ("{}", "{}", 1, "nobody", "is 'nobody', which is not another engine"),
        ("{}", "{}", 2, "b-0", "of the same pool"),
        ("{min: 2}", "{}", 1, "a-1", "but the pool has 1 engine that no other pool may take the GPU of"),
    ],
)
def test_a_pair_that_cannot_work_is_refused(a: str, b: str, gpu: int, other: str, said: str) -> None:
    found = problems(PAIR.format(a=a, b=b, gpu=gpu, other=other))
    assert any(said in problem for problem in found), found


def test_without_instead_of_the_gpu_is_taken_twice() -> None:
    text = PAIR.format(a="{}", b="{}", gpu=1, other="a-1").replace(", instead_of: a-1", "")
    assert problems(text) == ["engines[a-1] and engines[b-1] both take all of GPU 1"]
