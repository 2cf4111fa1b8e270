"""The search of an open loop, without Locust's processes: a probe is judged by who was due in its window."""

from pathlib import Path

import orjson
import pytest

from loadtest.run_spec import RunSpec, SearchPlan
from loadtest.statistics import Sample


@pytest.fixture(autouse=True)
def _sockets_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Locust replaces this process's sockets when it is imported."""
    monkeypatch.setenv("LOCUST_SKIP_MONKEY_PATCH", "1")


@pytest.mark.parametrize("seed", range(20))
def test_a_cluster_that_answers_everybody_holds_every_level_however_few_people_come(tmp_path: Path, seed: int) -> None:
    from loadtest.generator.loops import _SearchingLoad
    from loadtest.generator.results import ResultWriter

    plan = SearchPlan(start=6.5, settle_s=0.5, measure_s=1.25, max_probes=3)
    order = RunSpec("http://127.0.0.1", "m", "image", str(tmp_path), loop="open", search=plan, seed=seed)
    writer = ResultWriter(None, lambda: None)

    def everybody_is_answered(coming: list[tuple[float, int]], forget: bool) -> None:
        writer.samples += [
            Sample("image", who, 0, due_s, 0.0, 0.01, 0.02, 2, 10, 0, False, 200, "") for due_s, who in coming
        ]

    searching = _SearchingLoad(order, writer, everybody_is_answered)
    now_s = 1000.0
    while searching.users(now_s) is not None:
        now_s += 0.1
    probes = [orjson.loads(line) for line in (tmp_path / "probes.jsonl").read_bytes().splitlines()]
    assert [probe["held"] for probe in probes] == [True] * 3
