"""What is rendered and committed is what the code renders: a change of rendering shows as a diff to read.

Every other configuration is judged by the programs that read it: tests/integration/test_rendered_nginx.py,
tests/prometheus, tests/kubernetes, tests/e2e/test_rendered_files.py.
"""

from pathlib import Path

import pytest

from manyeyes.cli.config_commands import KUBERNETES_BY_HAND as BY_HAND
from manyeyes.cli.config_commands import KUBERNETES_FOLDER as COMMITTED
from manyeyes.config.loader import load
from manyeyes.config.placement import DEFAULT_INVENTORY, place_engines
from manyeyes.render.kubernetes.kustomize import tree
from manyeyes.render.renderer import render
from tests.golden.make import CASES, GOLDEN, ROOT, rendered

IN_GIT = ("base/", "engines/cuda/", "overlays/one-node/")
"""Of the tree for Kubernetes: what `kubectl apply -k deploy/kubernetes/overlays/one-node` reads. .gitignore leaves out the rest."""


@pytest.mark.parametrize("case", CASES)
def test_a_configuration_renders_to_its_golden_files(case: str) -> None:
    assert rendered(case) == files_below(GOLDEN / case), (
        "look at the difference, then `.venv/bin/python -m tests.golden.make`"
    )


def test_the_committed_default_is_what_the_committed_configuration_renders_to() -> None:
    config_file, folder = Path("config/cluster.yaml"), Path("compose/rendered/default")
    expected = render(
        place_engines(load(ROOT / config_file), DEFAULT_INVENTORY), DEFAULT_INVENTORY, config_file, folder
    )
    assert expected == files_below(ROOT / folder), "`make render`"


def test_the_committed_overlay_is_what_the_committed_configuration_renders_to() -> None:
    expected = {
        name: text for name, text in tree(load(ROOT / "config/cluster.yaml")).items() if name.startswith(IN_GIT)
    }
    found = {name: text for name, text in files_below(ROOT / COMMITTED).items() if name.startswith(IN_GIT)}
    assert expected == found, f"`make k8s` (all but {', '.join(BY_HAND)} is rendered)"


def files_below(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
