"""`python -m manyeyes.calibration.emulator_validation --url URL --profile P`: how far the emulator is from the engine that P was measured on.

The same seeded requests go to the real engine and to an emulated one with that profile, in turn, at one user and at a few;
each answer is a line of a .jsonl file, from which the tables are made. Exit codes as of loadtest.calibrate.
"""

import argparse
import contextlib
import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from loadtest.content import SeededPicture, question
from loadtest.host_info import read_cpu_time, read_host_info
from loadtest.result_files import ROOT
from loadtest.statistics import percentile
from manyeyes.calibration.__main__ import QUIET, CalibrationParser, console, count
from manyeyes.calibration.engine import CannotMeasure, Content, MeasuredEngine, TimedAnswer
from manyeyes.calibration.measure import wait_until_idle
from manyeyes.simulator import profile

KINDS: dict[str, tuple[int, tuple[int, int] | None]] = {
    "short text": (20, None),
    "long text": (400, None),
    "small picture": (12, (448, 320)),
    "large picture": (12, (1056, 800)),
}
"""Words, and the picture's size. None of these sizes was measured by `manyeyes calibrate`."""
ANSWER_TOKENS = 32
MOST_PAUSE_S = 0.5
STARTS_IN_S = 30.0


@dataclass(frozen=True)
class EngineTimes:
    """One answered request. `target` is `real` or `emulated`; seconds."""

    target: str
    users: int
    repeat: int
    others: float  # the share of all cores that others used just before this target was asked
    user: int
    number: int
    kind: str
    first_s: float
    total_s: float
    prompt_tokens: int


@dataclass(frozen=True)
class ScheduledRequest:
    """Which target is asked by how many people, how often already; `others` as in Told."""

    target: str
    users: int
    repeat: int
    others: float


def contents(seed: int, repeat: int, users: int, user: int, requests: int) -> Iterator[tuple[str, Content, float]]:
    """What one user asks, one after the other: kind, content, and the pause before it. The same for both targets.

    Each kind comes equally often, in an order and with pauses of the user's own: people in step would measure their step.
    """
    order = Random(f"{seed} {repeat} {users} {user}")
    kinds = [list(KINDS)[number % len(KINDS)] for number in range(requests)]
    order.shuffle(kinds)
    for number, kind in enumerate(kinds):
        random, pause_s = Random(f"{seed} {repeat} {users} {user} {number}"), MOST_PAUSE_S * order.random()
        words, size = KINDS[kind]
        text = f"{random.randrange(10**9)} {question(random, words)}"
        if size is None:
            yield kind, text, pause_s
            continue
        url = SeededPicture("photo", f"{seed} {repeat} {users} {user} {number}", size).data_url()
        yield kind, [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}], pause_s


def ask_all(
    engine: MeasuredEngine, visit: ScheduledRequest, a: argparse.Namespace, told: Callable[[EngineTimes], None]
) -> None:
    """People at once, each with one request after the other."""
    users, repeat = visit.users, visit.repeat

    def live(user: int) -> list[EngineTimes]:
        found = []
        for number, (kind, content, pause_s) in enumerate(contents(a.seed, repeat, users, user, a.requests)):
            time.sleep(pause_s)
            answer: TimedAnswer = engine.ask(content, ANSWER_TOKENS)
            found.append(
                EngineTimes(
                    **asdict(visit),
                    user=user,
                    number=number,
                    kind=kind,
                    first_s=round(answer.first_s, 6),
                    total_s=round(answer.total_s, 6),
                    prompt_tokens=answer.prompt_tokens,
                )
            )
        return found

    with ThreadPoolExecutor(users) as threads:
        for one in threads.map(live, range(users)):
            for answer in one:
                told(answer)


@contextlib.contextmanager
def emulator(profile_path: str, model: str, flags: Sequence[str]) -> Iterator[str]:
    """An emulated engine with that profile; its URL. Raises CannotMeasure when it does not start."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryFile() as log:
        command = [sys.executable, "-m", "manyeyes.emulator", "--host=127.0.0.1", f"--port={port}", "--start-seconds=0"]
        command += ["--served-model-name", model, f"--profile={profile_path}", *flags]
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + STARTS_IN_S
            while not _listens(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise CannotMeasure(f"the emulator did not start: {log.read().decode().strip()[-300:]}")
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=20)


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def tables(told: Sequence[EngineTimes]) -> str:
    """Markdown: for each number of users, times of both, and the emulator's error."""
    parts = []
    for users in sorted({one.users for one in told}):
        mine = [one for one in told if one.users == users]
        rows: list[tuple[str, ...]] = [("what", "real", "emulated", "error", "error in each repeat"), ("---",) * 5]
        for what, pick in WHATS.items():
            for share in (0.5, 0.95):
                rows.append(_row(f"{what} P{share * 100:.0f}", mine, pick, share))
        for kind in KINDS:
            of_kind = [one for one in mine if one.kind == kind]
            rows.append(_row(f"time to the first token P50, {kind}", of_kind, WHATS["time to the first token"], 0.5))
        others = sorted({(one.target, one.repeat, one.others) for one in mine})
        requests = len({(one.repeat, one.user, one.number) for one in mine})
        title = f"{users} user{'s' * (users != 1)}, {requests} requests to each"
        title += (
            f"; others used {min(one[2] for one in others):.0%} to {max(one[2] for one in others):.0%} of the machine"
        )
        parts.append(f"**{title}**\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows))
    return "\n\n".join(parts) + "\n"


WHATS: dict[str, Callable[[EngineTimes], float]] = {
    "time to the first token": lambda one: one.first_s,
    "time to the last token": lambda one: one.total_s,
}


def _row(name: str, told: Sequence[EngineTimes], pick: Callable[[EngineTimes], float], share: float) -> tuple[str, ...]:
    def both(some: Sequence[EngineTimes]) -> tuple[float, float]:
        real, emulated = ([pick(one) for one in some if one.target == target] for target in ("real", "emulated"))
        return percentile(real, share), percentile(emulated, share)

    real, emulated = both(told)
    each = [both([one for one in told if one.repeat == repeat]) for repeat in sorted({one.repeat for one in told})]
    errors = ", ".join(f"{other / one - 1:+.0%}" for one, other in each if one and other)
    error = f"{emulated / real - 1:+.0%}" if real else "-"
    return (name, f"{1e3 * real:.0f} ms", f"{1e3 * emulated:.0f} ms", error, errors)


def parser() -> CalibrationParser:
    p = CalibrationParser(prog="python -m manyeyes.calibration.emulator_validation", description=__doc__)
    p.add_argument("--url", default="http://127.0.0.1:8000", help="the real engine's own address")
    p.add_argument("--model", default="")
    p.add_argument("--profile", default="build/calibrate/profile.yaml", help="as `manyeyes calibrate` wrote it")
    p.add_argument("--users", type=count, nargs="+", default=[1, 4])
    p.add_argument("--requests", type=count, default=16, help="of each user, in each repeat")
    p.add_argument("--repeats", type=count, default=3)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--engine-flags", default="", help="the emulated engine's, as the real one's: --max-num-seqs=16 ...")
    p.add_argument("--quiet", type=float, default=2.0, help=QUIET)
    p.add_argument("--out", type=Path, default=Path("build/calibrate/error.jsonl"))
    p.add_argument("--show", action="store_true", help="only make the tables anew from --out")
    return p


def main(arguments: Sequence[str]) -> int:
    a = parser().parse_args(arguments)
    told: list[EngineTimes] = []
    try:
        if a.show:
            print(tables(read(a.out)))
            return 0
        profile.load_profile(a.profile)
        real = MeasuredEngine(a.url, a.model, os.environ.get("MANYEYES_API_KEY", ""))
        real.identify()
        a.out.parent.mkdir(parents=True, exist_ok=True)
        code = _measure(a, real, told)
    except (CannotMeasure, ValueError, OSError) as error:
        print(f"calibrate: {error}", file=sys.stderr)
        return 2
    print(tables(told))
    print(f"Written: {a.out}")
    return code


def _measure(a: argparse.Namespace, real: MeasuredEngine, told: list[EngineTimes]) -> int:
    before, code = read_cpu_time(), 0
    here = read_host_info(f"python -m manyeyes.calibration.emulator_validation {shlex.join(sys.argv[1:])}")
    columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        emulator(a.profile, real.model, shlex.split(a.engine_flags)) as url,
        Progress(*columns, console=console) as bars,
        a.out.open("w") as lines,
    ):
        emulated = MeasuredEngine(url, real.model)
        bar = bars.add_task("", total=a.repeats * len(a.users) * 2)
        for engine in (real, emulated):  # the first picture is several times slower
            for _, content, _ in contents(-1, 0, 1, 0, len(KINDS)):
                engine.ask(content, 4)

        def keep(one: EngineTimes) -> None:
            told.append(one)
            lines.write(json.dumps(asdict(one)) + "\n")

        try:
            for repeat in range(a.repeats):
                for users in a.users:
                    turns = [("real", real), ("emulated", emulated)]
                    for target, engine in turns if repeat % 2 == 0 else reversed(turns):
                        bars.update(bar, description=f"{target}, {users} users, repeat {repeat + 1}")
                        others = round(wait_until_idle(a.quiet), 2)
                        ask_all(engine, ScheduledRequest(target, users, repeat, others), a, keep)
                        bars.advance(bar)
        except KeyboardInterrupt:
            code = 130
        about: dict[str, Any] = {
            **asdict(here),
            "busy": round(read_cpu_time().share_since(before), 2),
            "partial": bool(code),
        }
        lines.write(json.dumps({"machine": about}) + "\n")
    return code


def read(file: Path) -> list[EngineTimes]:
    """The answers in a file that a run left."""
    rows = (json.loads(line) for line in file.read_text().splitlines())
    return [EngineTimes(**row) for row in rows if "machine" not in row]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
