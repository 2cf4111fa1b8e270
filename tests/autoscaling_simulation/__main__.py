"""`python -m tests.autoscaling_simulation`: simulated days under some policies, as a table between two marks of docs/benchmarks/autoscaling.md."""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from manyeyes.config.scaling import ScaleDown, Scaling, ScheduledEngines, Target
from tests.autoscaling_simulation.day import Outcome, Setting, play

PAGE = Path(__file__).resolve().parents[2] / "docs/benchmarks/autoscaling.md"
BEGIN, END = (
    "<!-- simulated days: made by `.venv/bin/python -m tests.autoscaling_simulation` -->",
    "<!-- end of simulated days -->",
)
SEEDS = range(8)
DEFAULT = Target(in_flight=9)
"""A fifth of the 48 requests that an RTX 4090 with 8B-FP8 runs at once: what a pool gets without a target."""
SETTINGS = {
    "all 6 always on": Setting(Scaling(min=6, target=DEFAULT)),
    "default (9 in flight), containers": Setting(Scaling(target=DEFAULT)),
    "default, sleep": Setting(Scaling(target=DEFAULT, actuator="sleep")),
    "default, at least 2 from 07:00 to 20:00": Setting(
        Scaling(target=DEFAULT, schedule=(ScheduledEngines(engines=2, begin="07:00", end="20:00"),))
    ),
    "default, down window 300 s": Setting(Scaling(target=DEFAULT, scale_down=ScaleDown(window_s=300))),
    "12 in flight": Setting(Scaling(target=Target(in_flight=12))),
    "16 in flight": Setting(Scaling(target=Target(in_flight=16))),
    "p95 9 s": Setting(Scaling(target=Target(p95_s=9))),
}


def table(outcomes: dict[str, list[Outcome]]) -> str:
    """One row a policy; ranges over the seeds."""
    lines = [
        "| policy | time the objective is held | engine-hours of always-on | changes a day | most in an hour | up-down-up in 10 min |",
        "|---|---|---|---|---|---|",
    ]
    for name, days in outcomes.items():
        lines.append(
            f"| {name} | {_range([day.held for day in days], '.1%')} | {_range([day.hours_share for day in days], '.0%')} "
            f"| {_range([len(day.changes) for day in days], 'd')} | {max(day.most_changes_an_hour for day in days)} "
            f"| {sum(day.swings(600) for day in days)} |"
        )
    return "\n".join(lines)


def _range(values: list[float] | list[int], form: str) -> str:
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"


def main() -> None:
    jobs = [(name, seed) for name in SETTINGS for seed in SEEDS]
    with ProcessPoolExecutor() as pool:
        played = list(pool.map(_play, jobs))
    outcomes: dict[str, list[Outcome]] = {name: [] for name in SETTINGS}
    for (name, _), outcome in zip(jobs, played, strict=True):
        outcomes[name].append(outcome)
    made = table(outcomes)
    print(made)
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n\n{made}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


def _play(job: tuple[str, int]) -> Outcome:
    return play(SETTINGS[job[0]], job[1])


if __name__ == "__main__":
    main()
