"""Each target of tests/fuzz for a moment, and every input that was a finding once."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).resolve().parents[1] / "fuzz/corpus"
EXAMPLES = {"config": 60, "registry": 100, "state": 40}
MOST = 200


@pytest.mark.parametrize("name", TARGETS)
def test_any_input_is_handled_and_raises_nothing(name: str) -> None:
    @settings(
        max_examples=EXAMPLES.get(name, MOST), deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.data())
    def run(data: st.DataObject) -> None:
        TARGETS[name].check(data.draw(TARGETS[name].inputs))

    run()


@pytest.mark.parametrize("file", sorted(CORPUS.glob("*/*")), ids=lambda file: f"{file.parent.name}-{file.name}")
def test_a_former_finding_is_handled(file: Path) -> None:
    TARGETS[file.parent.name].check(file.read_bytes())
