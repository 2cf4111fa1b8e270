"""Endpoints with an API of their own in cluster.yaml: what must hold, and when the adapter runs."""

from pathlib import Path

import pytest

from manyeyes.config.loader import ConfigError
from manyeyes.render.compose_env import compose_env
from tests.placed import placed

ENDPOINT = "endpoint: {url: 'https://h/x', template: {p: '{USER_PROMPT}', i: ['{IMAGE_URL}']}, answer: $.a}"
POOL = "pools: [{name: a, model: m, media: {images_per_prompt: 1, videos_per_prompt: 0}}]\n"


def problems(engines: str, pool: str = POOL) -> list[str]:
    with pytest.raises(ConfigError) as wrong:
        placed(f"{pool}engines:\n{engines}")
    return wrong.value.problems


def test_an_endpoint_wants_a_port_of_the_adapter_that_no_other_has() -> None:
    assert problems(f"- {{name: x, pool: a, gpus: [0], {ENDPOINT}}}") == [
        "engines[x] has an endpoint, so it wants the adapter's address, such as adapter:9100"
    ]
    assert problems(f"- {{name: x, pool: a, address: 'adapter:80', {ENDPOINT}}}") == [
        "engines[x].address wants a port of the adapter, 9100 to 9163, found 80"
    ]
    both = f"- {{name: x, pool: a, address: 'adapter:9100', {ENDPOINT}}}\n- {{name: y, pool: a, address: 'adapter:9100', {ENDPOINT}}}"
    assert problems(both) == [
        "engines[x] and engines[y] have endpoints at the same address adapter:9100; each wants its own"
    ]


def test_an_endpoint_serves_a_pool_that_takes_what_it_takes() -> None:
    found = problems(f"- {{name: x, pool: a, address: 'adapter:9100', {ENDPOINT}}}", "pools: [{name: a, model: m}]\n")
    assert found == ["engines[x] has an endpoint, which takes no videos; give it a pool with media.videos_per_prompt 0"]
    without_pictures = ENDPOINT.replace(", i: ['{IMAGE_URL}']", "")
    (problem,) = problems(f"- {{name: x, pool: a, address: 'adapter:9100', {without_pictures}}}")
    assert problem.endswith("give it a pool with media.images_per_prompt 0")


def test_a_wrong_path_or_template_is_told_by_its_place() -> None:
    wrong = ENDPOINT.replace("$.a", "'$.a['").replace("{USER_PROMPT}", "{PROMPT}")
    found = problems(f"- {{name: x, pool: a, address: 'adapter:9100', {wrong}}}")
    assert [problem.split(" wants ")[0] for problem in found] == [
        "engines[x].endpoint.template", "engines[x].endpoint.answer",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("engine", "adapter", "runs"),
    [
        (ENDPOINT, "{}", True),
        ("flavour: emulated", "{}", False),
        ("flavour: emulated", "{enabled: true}", True),
        (ENDPOINT, "{enabled: false}", False),
    ],
)
def test_the_adapter_runs_where_there_is_an_endpoint_or_it_is_wanted(engine: str, adapter: str, runs: bool) -> None:
    cluster = placed(f"{POOL}engines: [{{name: x, pool: a, address: 'adapter:9100', {engine}}}]\nadapter: {adapter}\n")
    assert cluster.starts_adapter is runs
    assert f"ADAPTER_REPLICAS={int(runs)}\n" in compose_env(cluster, Path("config/c.yaml"), Path("r"), {})
