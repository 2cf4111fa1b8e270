"""cluster.yaml is given another image and keeps everything else, comments too."""

from pathlib import Path

import pytest

from manyeyes.cli.upgrade import with_image
from manyeyes.config.loader import ConfigError, parse

POOLS = "# mine\npools:\n  - {name: a, model: m}  # the one\n"


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ("", "\nimages:\n  vllm_cuda: v/v:2\n"),
        ("images:\n  vllm_cuda: v/v:1  # pinned\n  nginx: nginx:1.30\n", "images:\n  vllm_cuda: v/v:2  # pinned\n  nginx: nginx:1.30\n"),
        ("images:\n  nginx: nginx:1.30\n", "images:\n  vllm_cuda: v/v:2\n  nginx: nginx:1.30\n"),
        ("images: {nginx: nginx:1.30}\n", "images: {vllm_cuda: v/v:2, nginx: nginx:1.30}\n"),
        ('images: {"vllm_cuda": "v/v:1"}\n', 'images: {"vllm_cuda": v/v:2}\n'),
    ],
)  # fmt: skip
def test_only_the_image_changes(images: str, expected: str) -> None:
    text = with_image(POOLS + images, Path("c.yaml"), "vllm_cuda", "v/v:2")
    assert text == POOLS + expected
    assert parse(text).images.vllm_cuda == "v/v:2"


def test_an_image_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"images\.vllm_cuda"):
        with_image(POOLS, Path("c.yaml"), "vllm_cuda", "not an image")
