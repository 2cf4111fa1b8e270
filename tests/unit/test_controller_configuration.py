"""Which texts are taken, and which are refused with every problem."""

from pathlib import Path

import pytest

from manyeyes.config.credentials import ApiKey, ApiKeys
from manyeyes.controller.config_sync.config_files import ConfigTexts, InvalidConfiguration, UnreadableFile, validate

CONFIG = Path("config/cluster.yaml")
RIGHT = "pools: [{name: a, model: m}]\nengines: [{name: e, pool: a, flavour: emulated}]\n"
ALICE = f"keys: [{{name: alice, sha256: {'a' * 64}}}]\n"
HAD = ApiKeys(keys=(ApiKey(name="alice", sha256="a" * 64),))


def texts(cluster: str | None = RIGHT, keys: str | None = None, inventory: str | None = None) -> ConfigTexts:
    return ConfigTexts(cluster, keys, inventory, None, None)


def refused(found: ConfigTexts, before: ApiKeys | None = None) -> tuple[list[str], set[str]]:
    with pytest.raises(InvalidConfiguration) as caught:
        validate(found, CONFIG, before or ApiKeys())
    return caught.value.problems, caught.value.reasons


def test_right_texts_are_a_cluster_and_its_keys() -> None:
    found = validate(texts(keys=ALICE), CONFIG, ApiKeys())
    assert [pool.name for pool in found.cluster.pools] == ["a"]
    assert [key.name for key in found.keys.keys] == ["alice"]


def test_every_problem_is_told_as_check_config_tells_it() -> None:
    problems, reasons = refused(texts("pools: [{name: a, model: m, fallback: b}]\ngatway: 3\n"))
    assert [problem.split(" ")[0] for problem in problems] == ["config/cluster.yaml:"] * 2
    assert reasons == {"cluster"}
    problems, reasons = refused(texts("pools: [{name: a, model: m, flavours: [cpu]}]", keys="keys: 3"))
    assert len(problems) == 2
    assert problems[0].startswith("config/api-keys.yaml: keys: expected")
    assert "no pool supports flavour cuda" in problems[1]
    assert reasons == {"keys", "layout"}


@pytest.mark.parametrize(
    ("cluster", "said"),
    [
        (None, "config/cluster.yaml: does not exist"),
        ("", "config/cluster.yaml: expected sections such as `pools:`, got nothing"),
        (UnreadableFile("cannot be read: permission denied"), "config/cluster.yaml: cannot be read: permission denied"),
    ],
)
def test_a_file_that_is_missing_empty_or_closed_is_refused(cluster: str | None, said: str) -> None:
    assert refused(texts(cluster))[0] == [said]


@pytest.mark.parametrize("keys", [None, "", " \n"])
def test_a_keys_file_that_is_gone_or_empty_does_not_let_everybody_in(keys: str | None) -> None:
    problems, reasons = refused(texts(keys=keys), HAD)
    assert "but API keys are active; to allow access without a key, write `keys: []` in it" in problems[0]
    assert reasons == {"keys"}
    assert validate(texts(keys=keys), CONFIG, ApiKeys()).keys == ApiKeys()
    assert validate(texts(keys="keys: []"), CONFIG, HAD).keys == ApiKeys()


def test_a_host_that_cannot_be_read_is_a_problem_like_any_other() -> None:
    assert (
        "the inventory of this host, which `make up` writes, cannot be read"
        in refused(texts(inventory="gpus: 3"))[0][0]
    )


def test_a_configuration_has_a_name_that_changes_with_it() -> None:
    assert texts().digest == texts().digest
    assert len({texts().digest, texts(keys="").digest, texts(keys=ALICE).digest, texts(RIGHT + "\n").digest}) == 4
