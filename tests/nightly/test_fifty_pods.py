"""Three pods become fifty and three again under load: more than one UDP answer of DNS holds."""

from pathlib import Path

import pytest

from tests.integration.test_kubernetes_membership import grow_and_shrink

FIFTY = [f"127.0.1.{number}" for number in range(1, 51)]


@pytest.mark.parametrize("by_srv", [False, True], ids=["addresses", "srv"])
def test_three_pods_become_fifty_and_three_again_under_load_and_no_request_fails(tmp_path: Path, by_srv: bool) -> None:
    asked = grow_and_shrink(tmp_path, FIFTY, by_srv)
    assert asked["udp truncated"] > 0, asked
    assert asked["tcp NOERROR"] > 0, asked
