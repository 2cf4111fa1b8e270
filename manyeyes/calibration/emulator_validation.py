"""`python -m manyeyes.calibration.emulator_validation --url URL --profile P`: compares the emulator with the engine that P was measured on.

The same seeded requests go alternately to the real engine and to an emulated engine with that profile, with one user and with
several. Each answer is a line of a .jsonl file, from which the tables are made. Exit codes as for manyeyes.calibration.
"""

import argparse
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from loadtest.content import SeededImage, question
from loadtest.host_info import read_cpu_time, read_host_info
from loadtest.result_files import append_line, read_lines
from loadtest.run import stepwise
from loadtest.scaling_report.backends import BackendError, emulated_engines
from loadtest.statistics import percentile
from manyeyes.arguments import COUNT, OneLineParser
from manyeyes.calibration.__main__ import QUIET_HELP
from manyeyes.calibration.engine import CannotMeasure, Content, MeasuredEngine
from manyeyes.calibration.measure import wait_until_idle
from manyeyes.charts.templates import markdown_table
from manyeyes.simulator import profile

KINDS: dict[str, tuple[int, tuple[int, int] | None]] = {
    "short text": (20, None),
    "long text": (400, None),
    "small image": (12, (448, 320)),
    "large image": (12, (1056, 800)),
}
"""Number of words, and size of the image. `manyeyes calibrate` measures none of these sizes."""
ANSWER_TOKENS = 32
MAX_PAUSE_S = 0.5


@dataclass(frozen=True)
class EngineTimes:
    """One answered request. `target` is `real` or `emulated`; seconds."""

    target: str
    users: int
    repeat: int
    others: float  # fraction of all cores that other processes used just before this target was measured
    user: int
    number: int
    kind: str
    first_s: float
    total_s: float
    prompt_tokens: int


def contents(seed: int, repeat: int, users: int, user: int, requests: int) -> Iterator[tuple[str, Content, float]]:
    """Yields one user's requests: kind, content, and the pause before it. They are the same for both targets.

    Each kind is equally frequent. Order and pauses differ between users, so that users do not stay in step.
    """
    order = Random(f"{seed} {repeat} {users} {user}")
    kinds = [list(KINDS)[number % len(KINDS)] for number in range(requests)]
    order.shuffle(kinds)
    for number, kind in enumerate(kinds):
        random, pause_s = Random(f"{seed} {repeat} {users} {user} {number}"), MAX_PAUSE_S * order.random()
        words, size = KINDS[kind]
        text = f"{random.randrange(10**9)} {question(random, words)}"
        if size is None:
            yield kind, text, pause_s
            continue
        url = SeededImage("photo", f"{seed} {repeat} {users} {user} {number}", size).data_url()
        yield kind, [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}], pause_s


def send_all(
    engine: MeasuredEngine, target: str, users: int, repeat: int, others: float, a: argparse.Namespace
) -> Iterator[EngineTimes]:
    """Runs concurrent users, each of whom sends one request after the other."""

    def run_user(user: int) -> list[EngineTimes]:
        results = []
        for number, (kind, content, pause_s) in enumerate(contents(a.seed, repeat, users, user, a.requests)):
            time.sleep(pause_s)
            answer = engine.ask(content, ANSWER_TOKENS)
            times = round(answer.first_s, 6), round(answer.total_s, 6)
            results.append(EngineTimes(target, users, repeat, others, user, number, kind, *times, answer.prompt_tokens))
        return results

    with ThreadPoolExecutor(users) as threads:
        for results in threads.map(run_user, range(users)):
            yield from results


def tables(results: Sequence[EngineTimes]) -> str:
    """Markdown tables for each number of users: times of both targets, and the emulator's error."""
    parts = []
    for users in sorted({result.users for result in results}):
        selected = [result for result in results if result.users == users]
        rows = [
            _row(f"{name} P{100 * quantile:.0f}", selected, pick, quantile)
            for name, pick in TIMES.items()
            for quantile in QUANTILES
        ]
        for kind in KINDS:
            selected_kind = [result for result in selected if result.kind == kind]
            rows.append(_row(f"{FIRST_TOKEN} P50, {kind}", selected_kind, TIMES[FIRST_TOKEN], 0.5))
        others = [result.others for result in selected]
        requests = len({(result.repeat, result.user, result.number) for result in selected})
        title = (
            f"{users} user{'s' * (users != 1)}, {requests} requests to each; "
            f"others used {min(others):.0%} to {max(others):.0%} of the machine"
        )
        table = markdown_table(("what", "real", "emulated", "error", "error in each repeat"), rows)
        parts.append(f"**{title}**\n\n{table}")
    return "\n".join(parts)


FIRST_TOKEN = "time to the first token"
TIMES: dict[str, Callable[[EngineTimes], float]] = {
    FIRST_TOKEN: lambda result: result.first_s,
    "time to the last token": lambda result: result.total_s,
}
QUANTILES = (0.5, 0.95)


def _row(
    name: str, results: Sequence[EngineTimes], pick: Callable[[EngineTimes], float], quantile: float
) -> tuple[str, ...]:
    def percentiles(selected: Sequence[EngineTimes]) -> tuple[float, float]:
        real, emulated = (
            [pick(result) for result in selected if result.target == target] for target in ("real", "emulated")
        )
        return percentile(real, quantile), percentile(emulated, quantile)

    real, emulated = percentiles(results)
    pairs = [
        percentiles([result for result in results if result.repeat == repeat])
        for repeat in sorted({result.repeat for result in results})
    ]
    errors = ", ".join(f"{emulated_s / real_s - 1:+.0%}" for real_s, emulated_s in pairs if real_s and emulated_s)
    error = f"{emulated / real - 1:+.0%}" if real else "-"
    return (name, f"{1e3 * real:.0f} ms", f"{1e3 * emulated:.0f} ms", error, errors)


def parser() -> OneLineParser:
    p = OneLineParser("calibrate", prog="python -m manyeyes.calibration.emulator_validation", description=__doc__)
    p.add_argument("--url", default="http://127.0.0.1:8000", help="the address of the real engine, not of the gateway")
    p.add_argument("--model", default="")
    p.add_argument("--profile", default="build/calibrate/profile.yaml", help="profile written by `manyeyes calibrate`")
    p.add_argument("--users", type=COUNT, nargs="+", default=[1, 4])
    p.add_argument("--requests", type=COUNT, default=16, help="requests of each user in each repeat")
    p.add_argument("--repeats", type=COUNT, default=3)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument(
        "--engine-flags",
        default="",
        help="flags of the emulated engine, equal to those of the real engine: --max-num-seqs=16 ...",
    )
    p.add_argument("--quiet", type=float, default=2.0, help=QUIET_HELP)
    p.add_argument("--out", type=Path, default=Path("build/calibrate/error.jsonl"))
    p.add_argument("--show", action="store_true", help="only print the tables from --out")
    return p


def main(arguments: Sequence[str]) -> int:
    a = parser().parse_args(arguments)
    try:
        if a.show:
            print(tables(read(a.out)))
            return 0
        profile.load_profile(a.profile)
        real = MeasuredEngine(a.url, a.model, os.environ.get("MANYEYES_API_KEY", ""))
        real.identify()
        a.out.parent.mkdir(parents=True, exist_ok=True)
        a.out.write_bytes(b"")
        code = _measure(a, real)
    except (CannotMeasure, BackendError, ValueError, OSError) as error:
        print(f"calibrate: {error}", file=sys.stderr)
        return 2
    print(tables(read(a.out)))
    print(f"Written: {a.out}")
    return code


def _measure(a: argparse.Namespace, real: MeasuredEngine) -> int:
    before, code = read_cpu_time(), 0
    host = read_host_info(f"python -m manyeyes.calibration.emulator_validation {shlex.join(sys.argv[1:])}")
    flags = [f"--profile={a.profile}", *shlex.split(a.engine_flags)]
    with (
        tempfile.TemporaryDirectory() as folder,
        emulated_engines(Path(folder), real.model, flags=flags) as (address,),
    ):
        engines = {"real": real, "emulated": MeasuredEngine(f"http://{address}", real.model)}
        for engine in engines.values():  # the first image is several times slower
            for _, content, _ in contents(-1, 0, 1, 0, len(KINDS)):
                engine.ask(content, 4)
        runs = [
            (target, users, repeat)
            for repeat in range(a.repeats)
            for users in a.users
            for target in (engines if repeat % 2 == 0 else reversed(engines))
        ]
        try:
            for target, users, repeat in stepwise(runs, lambda run: f"{run[0]}, {run[1]} users, repeat {run[2] + 1}"):
                others = round(wait_until_idle(a.quiet), 2)
                for result in send_all(engines[target], target, users, repeat, others, a):
                    append_line(a.out, result)
        except KeyboardInterrupt:
            code = 130
        busy = round(read_cpu_time().share_since(before), 2)
        append_line(a.out, {"machine": {**asdict(host), "busy": busy, "partial": bool(code)}})
    return code


def read(file: Path) -> list[EngineTimes]:
    return [EngineTimes(**fields) for fields in read_lines(file) if "machine" not in fields]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
