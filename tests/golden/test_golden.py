"""What every example renders to is committed: a change of rendering shows as a diff to read."""

from pathlib import Path

import pytest

from manyeyes.config.loader import load
from manyeyes.config.placement import DEFAULT_INVENTORY, place_engines
from manyeyes.render.renderer import render
from tests.golden.make import EXAMPLES, GOLDEN, ROOT, rendered


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_renders_to_its_golden_files(example: Path) -> None:
    assert rendered(example) == committed(GOLDEN / example.stem), "look at the difference, then `make golden`"


def test_every_golden_folder_has_its_example() -> None:
    assert {path.name for path in GOLDEN.iterdir() if path.is_dir() and path.name[0] not in "_."} == {
        example.stem for example in EXAMPLES
    }


def test_the_committed_default_is_what_the_committed_configuration_renders_to() -> None:
    config_file, folder = Path("config/cluster.yaml"), Path("compose/rendered/default")
    expected = render(
        place_engines(load(ROOT / config_file), DEFAULT_INVENTORY), DEFAULT_INVENTORY, config_file, folder
    )
    assert expected == committed(ROOT / folder), "`make render`"


def committed(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
