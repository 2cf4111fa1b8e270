"""What the page knows of a model's limits, from cluster.yaml."""

import os
from pathlib import Path

from webui.chat.chat_requester import ModelLimits


def test_limits_come_from_the_pool_that_answers_to_the_name_whoever_lays_out_the_engines(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(
        "engines: auto\npools: [{name: big, model: org/Big, aliases: [b], media: {images_per_prompt: 9}}]\n"
    )
    caps = ModelLimits(file)
    assert [caps.media(name).images_per_prompt for name in ("big", "org/Big", "b", "auto", None)] == [9, 9, 9, 16, 16]


def test_a_changed_file_counts_and_a_broken_one_does_not(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    caps = ModelLimits(file)
    for number, (text, wanted) in enumerate(((pools(4096), 4096), (pools(8192), 8192), ("pools: nonsense", 8192))):
        file.write_text(text)
        os.utime(file, ns=(number + 1, number + 1))
        pool = caps.pool("big")
        assert pool is not None
        assert pool.max_model_len == wanted


def pools(length: int) -> str:
    return (
        f"pools: [{{name: big, model: m, max_model_len: {length}}}]\n"
        "engines: [{name: gpu-0, pool: big, flavour: emulated}]\n"
    )


def test_without_a_file_the_schemas_defaults_count() -> None:
    assert ModelLimits(None).media("anything").images_per_prompt == 16
