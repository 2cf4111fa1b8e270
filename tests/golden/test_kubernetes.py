"""deploy/kubernetes/ and deploy/swarm are committed for the committed configuration: a change of rendering shows as a diff to read."""

from manyeyes.config.loader import load
from manyeyes.render.kubernetes.__main__ import BY_HAND, COMMITTED
from manyeyes.render.kubernetes.kustomize import tree
from manyeyes.render.nginx.files import NO_KEYS
from manyeyes.render.swarm.__main__ import COMMITTED as SWARM
from manyeyes.render.swarm.__main__ import stacks
from tests.golden.make import ROOT
from tests.golden.test_golden import committed


def test_the_committed_tree_for_kubernetes_is_what_the_committed_configuration_renders_to() -> None:
    found = {name: text for name, text in committed(ROOT / COMMITTED).items() if name not in BY_HAND}
    assert tree(load(ROOT / "config/cluster.yaml")) == found, "`make k8s`"


def test_the_committed_stacks_for_swarm_are_what_the_committed_configuration_renders_to() -> None:
    assert stacks(load(ROOT / "config/cluster.yaml"), NO_KEYS) == committed(ROOT / SWARM), "`make swarm`"
