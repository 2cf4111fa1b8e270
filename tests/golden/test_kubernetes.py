"""kubernetes/ is committed for the committed configuration: a change of rendering shows as a diff to read."""

from config.load import load
from render.kubernetes.__main__ import BY_HAND, COMMITTED
from render.kubernetes.tree import tree
from tests.golden.make import ROOT
from tests.golden.test_golden import committed


def test_the_committed_tree_for_kubernetes_is_what_the_committed_configuration_renders_to() -> None:
    found = {name: text for name, text in committed(ROOT / COMMITTED).items() if name not in BY_HAND}
    assert tree(load(ROOT / "config/cluster.yaml")) == found, "`make k8s`"
