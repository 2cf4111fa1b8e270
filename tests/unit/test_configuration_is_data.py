"""A text of cluster.yaml means itself in every file that is rendered, or validation refuses it."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from manyeyes.config.credentials import ApiKeys
from manyeyes.config.loader import ConfigError, parse
from manyeyes.config.placement import DEFAULT_INVENTORY, Inventory, PlacedCluster, place_engines
from manyeyes.render.compose_engines import engines_yaml
from manyeyes.render.compose_env import compose_settings
from manyeyes.render.kubernetes.kustomize import tree
from manyeyes.render.monitoring import alertmanager_yml

PLACEHOLDER = re.compile(r"\$\{(PYTHON_IMAGE|CONTROLLER_IMAGE|HF_TOKEN:-|HF_ENDPOINT:-https://huggingface.co|VLLM_ENABLE_CUDA_COMPATIBILITY:-0)\}")  # fmt: skip
ENDURING = settings(
    max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
ODD = ["$HOME", "${HOME}", "$$", "$(id)", "`id`", "{{ .x }}", "{{", "a#b", " # b", "a:b", "'", '"', "\\", "\n", "%d", "*a", "&a", "!x", "- a", "é", "\u2028"]  # fmt: skip
TEXTS = st.one_of(
    st.text(max_size=10), st.lists(st.sampled_from([*ODD, "a", "/", "b"]), min_size=1, max_size=4).map("".join)
)


def laid_out(**changes: Any) -> PlacedCluster:
    pool = {"name": "big", "model": "org/M"} | changes.pop("pool", {})
    return place_engines(parse(yaml.safe_dump({"pools": [pool], **changes})), DEFAULT_INVENTORY)


def without_dollars(text: str) -> None:
    """Raises AssertionError when Compose would put a variable somewhere."""
    assert "$" not in PLACEHOLDER.sub("", text).replace("$$", ""), text


@ENDURING
@given(TEXTS)
def test_a_flag_reaches_vllm_as_it_is_written(text: str) -> None:
    assume(text.isprintable())
    flag = f"--override={text}"
    try:
        cluster = laid_out(pool={"vllm_flags": [flag]})
    except ConfigError:
        return
    rendered = engines_yaml(cluster)
    without_dollars(rendered)
    for service in yaml.safe_load(rendered)["services"].values():
        if "--override" in str(service.get("command")):
            assert flag in [word.replace("$$", "$") for word in service["command"]]


FIELDS: dict[str, Callable[[str], dict[str, Any]]] = {
    "model": lambda text: {"pool": {"model": text}},
    "model path": lambda text: {"pool": {"model": f"/{text}"}},
    "revision": lambda text: {"pool": {"revision": text}},
    "volume": lambda text: {"models": {"volume": text}},
    "volume path": lambda text: {"models": {"volume": f"/{text}", "cache_volume": f"/{text}"}},
    "image": lambda text: {"images": {"vllm_cuda": text}},
    "project": lambda text: {"name": text},
    "alias": lambda text: {"pool": {"aliases": [text]}},
    "runbooks": lambda text: {"monitoring": {"runbooks": text}},
    "domain": lambda text: {"network": {"domain": text}},
    "email": lambda text: {"monitoring": {"alerting": {"emails": [{"to": f"{text}@b", "sender": "a@b", "server": "h:25", "user": text}]}}},
    "collector": lambda text: {"tracing": {"enabled": True, "endpoint": text}},
}  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
def test_a_text_that_compose_prometheus_or_alertmanager_could_misread_is_refused(field: str) -> None:
    @ENDURING
    @given(TEXTS)
    def run(text: str) -> None:
        try:
            cluster = laid_out(**FIELDS[field](text))
        except ConfigError:
            return
        without_dollars(engines_yaml(cluster))
        for key, value in compose_settings(cluster).items():
            assert not set(value) & set("$\"'`#\\\n\r\0"), (key, value)
        assert "{{" not in json.dumps(yaml.safe_load(alertmanager_yml(cluster)))
        assert "{{" not in cluster.monitoring.runbooks

    run()


@settings(ENDURING, max_examples=10)  # every file of every overlay is rendered
@given(TEXTS)
def test_a_flag_reaches_kubernetes_as_it_is_written(text: str) -> None:
    assume(text.isprintable())
    try:
        cluster = parse(yaml.safe_dump({"pools": [{"name": "big", "model": "org/M", "vllm_flags": [f"--x={text}"]}]}))
        place_engines(cluster, Inventory(flavour="cuda", gpus=DEFAULT_INVENTORY.gpus))
    except ConfigError:
        return
    for name, content in tree(cluster, ApiKeys(), ".").items():
        if name.endswith((".yaml", ".yml")):
            for document in yaml.safe_load_all(content):
                words = re.findall(r'"(--x=(?:[^"\\]|\\.)*)"', json.dumps(document))
                assert all(json.loads(f'"{word}"').replace("$$", "$") == f"--x={text}" for word in words)
