"""The settings of scaling: what is refused, and in which words."""

import pytest

from manyeyes.config.loader import ConfigError, parse
from manyeyes.config.scaling import Keep


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return caught.value.problems


REFUSED = {
    "counts must be had": (
        "pools: [{name: a, model: m, scaling: {min: 3, max: 5, keep: [{engines: 4}]}}]\n"
        "engines: [{name: a-0, pool: a, gpus: [0]}, {name: a-1, pool: a, gpus: [1]}]",
        [
            "pools[a].scaling.max is 5, but the pool has 2 engines",
            "pools[a].scaling.min is 3, but the pool has 2 engines",
            "pools[a].scaling.keep wants 4 engines, more than the 2 there may be",
        ],
    ),
    "min may not exceed max": (
        "pools: [{name: a, model: m, scaling: {min: 3, max: 2}}]",
        ["pools[a].scaling.min 3 exceeds max 2"],
    ),
    "sleep wants a GPU, and a target for GPUs wants their exporter": (
        "pools: [{name: a, model: m, scaling: {actuator: sleep, target: {gpu: 0.7}}}]\n"
        "engines: [{name: a-0, pool: a, flavour: cpu}]",
        [
            "pools[a].scaling.target.gpu wants controller.gpu_metrics_url, where the GPUs' use is told",
            "pools[a].scaling.actuator is sleep, which vLLM has on GPUs only; engines[a-0] is on cpu",
        ],
    ),
    "containers must be allowed, and a remote pool has nothing to scale": (
        "pools: [{name: a, model: m, scaling: {}},"
        ' {name: b, model: n, remote: {url: "https://api.example.com/v1"}, scaling: {actuator: sleep}}]\n'
        "controller: {containers: false}",
        [
            "pools[a].scaling.actuator is containers, so controller.containers must be true",
            "pools[b].scaling has no engines to start or stop: the pool is remote",
        ],
    ),
    "times and zones are told by example": (
        "pools: [{name: a, model: m, scaling: {time_zone: Mars/Base, keep: [{engines: 1, begin: '8:00'}]}}]",
        [
            "pools[a].scaling.keep[0].begin wants a time such as 08:00, found '8:00'",
            "pools[a].scaling.time_zone wants a time zone such as UTC or Europe/Berlin, found 'Mars/Base'",
        ],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_with_every_problem(case: str) -> None:
    text, said = REFUSED[case]
    assert problems(text) == said


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
