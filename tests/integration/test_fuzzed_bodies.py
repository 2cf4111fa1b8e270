"""What the gateway reads from random hostile bodies, against Python's JSON parser, vLLM's rules and Pillow: the short run.
`python -m tests.integration.scan.fuzz` is the long one."""

import pytest

from tests.integration.scan.fuzz import corpus, fuzz_round
from tests.integration.scan.mutations import Mutator, originals
from tests.integration.scan.reference import faults, file_size
from tests.integration.scan.server import Modules
from tests.integration.scan.worst_bodies import ABOVE, BELOW
from tests.integration.test_images_checked import judged


def test_bodies_that_were_read_in_new_ways_are_read_right(njs: Modules) -> None:
    documents = corpus()
    assert documents
    for document, found in zip(documents, njs.read(documents), strict=True):
        assert not faults(document, found), document[:300]


@pytest.mark.parametrize("seed", range(5))
def test_no_body_shows_the_gateway_less_than_the_engine(njs: Modules, seed: int) -> None:
    for document, _, problems in fuzz_round(njs, Mutator(seed, originals()), 300):
        assert not problems, document[:300]


@pytest.mark.parametrize("seed", range(3))
def test_a_changed_file_is_never_larger_than_it_was_judged(njs: Modules, seed: int) -> None:
    mutator = Mutator(seed, originals())
    files = [mutator.file() for _ in range(500)]
    for file, found in zip(files, judged(njs, files), strict=True):
        size = file_size(file)
        if size and not isinstance(found, str):
            assert size[0] * size[1] <= found[0] * found[1], file


@pytest.mark.parametrize("name", BELOW)
def test_a_body_just_below_the_limits_is_read(njs: Modules, name: str) -> None:
    found = njs.read([BELOW[name]().encode()])[0]
    assert "model" in found, found


@pytest.mark.parametrize("name", ["1 MB of empty messages", "15000 long strings", "300 images of 200 KB"])
def test_a_body_above_the_limits_is_refused(njs: Modules, name: str) -> None:
    assert "too complex" in njs.read([ABOVE[name]().encode()])[0]["refused"]
