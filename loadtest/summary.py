"""A run in figures: on the terminal, as summary.json for programs and `manyeyes compare`, as summary.md for people."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from loadtest.run import LIMIT_CPU, LIMIT_LAG_S, RunResult
from loadtest.statistics import RunFigures

GENERATOR_WAS_LIMIT = (
    "The load generator was the limit: {cpu:.0%} of a core in its busiest process, timers up to {lag:.0f} ms late. "
    "Give it more processes (PROCESSES=) or a machine of its own; the figures say too little of the engines."
)


def document(about: dict[str, Any], ran: RunResult, seen: RunFigures, more: dict[str, Any]) -> dict[str, Any]:
    """`about`: what was done. `more`: what a search found."""
    return {
        "about": about,
        "partial": ran.trouble,
        "figures": asdict(seen),
        "generator": {
            "cpu_p95": ran.cpu_p95,
            "lag_p95_s": ran.lag_p95_s,
            "was_limit": ran.generator_was_limit,
            "limit_cpu": LIMIT_CPU,
            "limit_lag_s": LIMIT_LAG_S,
        },
        **more,
    }


def write(file: Path, what: dict[str, Any]) -> None:
    """Whole or not at all."""
    part = file.with_suffix(".part")
    part.write_bytes(orjson.dumps(what, option=orjson.OPT_INDENT_2))
    part.replace(file)


def rows(seen: RunFigures) -> list[tuple[str, str]]:
    """What a person wants to read, with units."""
    found = [
        ("Requests a second", f"{seen.rps:.2f}"),
        ("Goodput (within the objective)", f"{seen.goodput_rps:.2f} a second, {seen.kept_share:.1%} of requests"),
        ("Answer p50 / p95 / p99", f"{seen.total_p50_s:.2f} / {seen.total_p95_s:.2f} / {seen.total_p99_s:.2f} s"),
        ("First token p50 / p95 / p99", f"{seen.first_p50_s:.2f} / {seen.first_p95_s:.2f} / {seen.first_p99_s:.2f} s"),
        ("Per token p50 / p95", f"{1e3 * seen.token_p50_s:.1f} / {1e3 * seen.token_p95_s:.1f} ms"),
        ("Tokens a second", f"{seen.tokens_per_s:.0f}"),
        ("Prompt tokens from cache", f"{seen.cached_share:.0%}"),
        (
            "Answered, failed",
            f"{seen.answered}, {seen.failed}" + "".join(f"; {n} x {why}" for why, n in seen.errors.items()),
        ),
    ]
    if seen.video_success is not None:
        found.append(("Videos answered", f"{seen.video_success:.1%} of {seen.videos}"))
    if seen.per_engine:
        found.append(("By engine", ", ".join(f"{name} {count}" for name, count in seen.per_engine.items())))
    return found
