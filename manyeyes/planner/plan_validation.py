"""`python -m manyeyes.planner.plan_validation`: compares the planner with emulated engines behind the real nginx.

Both get the same arrivals, sizes and pauses. Engines are processes whose clock can be slowed (`--speed`), so that a busy
machine distorts the figures less. Every answer is stored in a .jsonl file, from which the tables are made.
"""

import argparse
import base64
import struct
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import orjson

from loadtest.host_info import read_cpu_time, read_host_info
from loadtest.http_client import StreamingConnection, parse_target
from loadtest.result_files import append_line, read_lines, write_text
from loadtest.run import stepwise
from loadtest.scaling_report.backends import MODEL, ProcessBackend
from loadtest.statistics import percentile
from loadtest.virtual_user import exchange
from manyeyes.charts.templates import markdown_table
from manyeyes.config.pools import Pool
from manyeyes.planner.simulation import MeasuredSpan, Simulation
from manyeyes.planner.workload import (
    PlannedWorkload,
    PlanRequest,
    SimulatedConversation,
    SimulationResult,
    arrivals,
    gpu_spec_of,
)
from manyeyes.simulator import profile


@dataclass(frozen=True)
class ValidationCase:
    """One configuration to compare. `name` only describes the load; `rps` defines it."""

    name: str
    profile: str
    engines: int
    rps: float
    work: PlannedWorkload
    warm_s: float = 15.0
    measured_s: float = 90.0

    @property
    def span(self) -> MeasuredSpan:
        return MeasuredSpan(self.warm_s, self.measured_s)

    def ask(self, seed: int) -> PlanRequest:
        """The plan for the engines that loadtest/scaling_report/backends.py starts: a pool with default settings."""
        pool = Pool(name="qwen3-vl-4b", model="Qwen/Qwen3-VL-4B-Instruct")
        card = gpu_spec_of(profile.load_profile(self.profile), pool)
        return PlanRequest(self.work, card, self.rps, 5.0, None, 0.99, seed=seed)


FOUR_B, EIGHT_B = "rtx4090-qwen3-vl-4b-fp8", "rtx4090-qwen3-vl-8b-fp8"
ONE_PICTURE = PlannedWorkload(1280, 720, output_tokens=80)
SMALLER_PICTURE = PlannedWorkload(896, 672, output_tokens=80)
CHAT = PlannedWorkload(1024, 768, turns=5, think_s=4.0, output_tokens=60)
TWO_PICTURES = PlannedWorkload(1024, 768, images=2, words=200, output_tokens=60)
LARGE_PICTURE = PlannedWorkload(1920, 1080, output_tokens=12)
VALIDATION_CASES = (
    ValidationCase("one engine, single images, low load", FOUR_B, 1, 2.5, ONE_PICTURE),
    ValidationCase("three engines, single images, high load", FOUR_B, 3, 15.0, SMALLER_PICTURE),
    ValidationCase("three engines, chats of five turns about an image", FOUR_B, 3, 12.0, CHAT, warm_s=35.0),
    ValidationCase("two engines, 8B, two images, long questions", EIGHT_B, 2, 2.4, TWO_PICTURES),
    ValidationCase("two engines, large images, short answers", FOUR_B, 2, 8.0, LARGE_PICTURE),
)


HEADERS = {"Content-Type": "application/json", "Accept": "text/event-stream"}
TIMEOUT_S = 600.0


@dataclass(frozen=True)
class EmulatedResult:
    """One request, in seconds of the engines' clock since the start. `first_s` and `total_s` are 0 if it failed."""

    arrived: float
    first_s: float
    total_s: float


def picture(work_number: int, width: int, height: int) -> str:
    """A PNG with only a header and eight unique bytes: the emulator reads nothing else of an image."""
    head = struct.pack(">4sIIBBBBB", b"IHDR", width, height, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    data += struct.pack(">I4sQ", 8, b"IDAT", work_number)
    return "data:image/png;base64," + base64.b64encode(data).decode()


class ValidationUsers:
    """Starts each conversation when it is due, each in a separate thread."""

    def __init__(self, held: ValidationCase, seed: int, url: str, slowdown: float) -> None:
        self.held, self.seed, self.slowdown = held, seed, slowdown
        self.to = parse_target(url)
        self.told: list[EmulatedResult] = []
        self.failures: Counter[str] = Counter()
        self.latest_s = 0.0  # the longest delay of the start of a conversation

    def run(self) -> None:
        span, work = self.held.span, self.held.work
        threads = []
        self.began = time.perf_counter()
        until = span.warm_s + span.measured_s
        for number, at in enumerate(arrivals(self.seed, self.held.rps / work.turns, until)):
            time.sleep(max(0.0, self.began + at * self.slowdown - time.perf_counter()))
            self.latest_s = max(self.latest_s, time.perf_counter() - self.began - at * self.slowdown)
            threads.append(threading.Thread(target=self.talk, args=(number, until), daemon=True))
            threads[-1].start()
        for thread in threads:
            thread.join()

    def engines_s(self, at: float) -> float:
        """Converts a wall-clock time to seconds of the engines' clock since the start."""
        return (at - self.began) / self.slowdown

    def talk(self, number: int, until: float) -> None:
        work, conversation = self.held.work, SimulatedConversation(self.held.work, self.seed, number)
        connection = StreamingConnection(self.to, TIMEOUT_S)
        messages: list[dict[str, Any]] = []
        try:
            for turn in range(work.turns):
                if turn:
                    time.sleep(work.pause_s(self.seed, number, turn - 1) * self.slowdown)
                    if self.engines_s(time.perf_counter()) >= until:
                        return
                answer = len(conversation.next_job().answer)
                messages.append({"role": "user", "content": self.content(number, turn)})
                said = self.ask(connection, messages, answer)
                if said is None:
                    return
                messages.append({"role": "assistant", "content": said})
        finally:
            connection.close()

    def content(self, number: int, turn: int) -> list[dict[str, Any]]:
        work = self.held.work
        urls = [picture(number * work.images + n, work.width, work.height) for n in range(work.images * (turn == 0))]
        words = " ".join(f"w{number}.{turn}.{n}" for n in range(work.words))
        return [*({"type": "image_url", "image_url": {"url": url}} for url in urls), {"type": "text", "text": words}]

    def ask(self, connection: StreamingConnection, messages: list[dict[str, Any]], tokens: int) -> str | None:
        body = {"model": MODEL, "messages": messages, "max_tokens": tokens, "ignore_eos": True, "stream": True}
        asked = exchange(connection, orjson.dumps(body), HEADERS)
        at = self.engines_s(asked.began)
        if asked.failed:
            self.failures[asked.failed] += 1
            self.told.append(EmulatedResult(at, 0.0, 0.0))
            return None
        first, ended = self.engines_s(asked.stream.tokens_s[0]), self.engines_s(asked.ended)
        self.told.append(EmulatedResult(round(at, 4), round(first - at, 4), round(ended - at, 4)))
        return "".join(asked.stream.text)


def emulated(held: ValidationCase, seed: int, speed: float) -> ValidationUsers:
    """Runs the configuration on processes behind the real gateway."""
    with (
        tempfile.TemporaryDirectory(prefix="manyeyes-planner-") as folder,
        ProcessBackend(speed, held.profile).at(held.engines, Path(folder)) as stood,
    ):
        users = ValidationUsers(held, seed, stood.url, stood.slowdown)
        users.run()
    return users


def figures(held: ValidationCase, told: Sequence[EmulatedResult]) -> dict[str, float]:
    """The figures of a run, over the requests that arrived in the measured time."""
    span = held.span
    ends = span.warm_s + span.measured_s
    mine = [one for one in told if span.warm_s <= one.arrived < ends and one.total_s]
    in_time = [one for one in told if one.total_s and span.warm_s <= one.arrived + one.total_s < ends]
    return _figures(len(in_time) / span.measured_s, [one.total_s for one in mine], [one.first_s for one in mine])


def planned(held: ValidationCase, seed: int) -> tuple[SimulationResult, dict[str, float]]:
    outcome = Simulation(held.ask(seed), held.engines, held.span).run()
    return outcome, _figures(outcome.rps, list(outcome.total_s), list(outcome.first_s))


def _figures(rps: float, total: Sequence[float], first: Sequence[float]) -> dict[str, float]:
    return {
        "requests": len(total),
        "requests/s": rps,
        "P50": percentile(total, 0.5),
        "P95": percentile(total, 0.95),
        "P99": percentile(total, 0.99),
        "first token P50": percentile(first, 0.5),
        "first token P95": percentile(first, 0.95),
    }


COMPARED = ("requests/s", "P50", "P95", "P99", "first token P50", "first token P95")


def tables(lines: Sequence[dict[str, Any]]) -> str:
    """Markdown table: emulated and planned values, and the planner's error in each repeat."""
    rows = []
    for held in VALIDATION_CASES:
        if mine := [line for line in lines if line["name"] == held.name]:
            requests = " + ".join(f"{line['emulated']['requests']:.0f}" for line in mine)
            rows.append((held.name, requests, *(_cell(mine, what) for what in COMPARED)))
    return markdown_table(("configuration", "requests", *COMPARED), rows)


def _cell(mine: Sequence[dict[str, Any]], what: str) -> str:
    seen, said = (mean(line[side][what] for line in mine) for side in ("emulated", "planned"))
    each = ", ".join(f"{line['planned'][what] / line['emulated'][what] - 1:+.1%}" for line in mine)
    return f"{seen:.3g} / {said:.3g}<br>{each}"


def worst(lines: Sequence[dict[str, Any]]) -> float:
    """The largest relative error of requests/s and P95 over all repeats."""
    errors = [line["planned"][what] / line["emulated"][what] - 1 for line in lines for what in ("requests/s", "P95")]
    return float(max(map(abs, errors)))


def read(file: Path) -> list[dict[str, Any]]:
    return [line for line in read_lines(file) if "name" in line]


def main(arguments: Sequence[str]) -> int:
    p = argparse.ArgumentParser(prog="python -m manyeyes.planner.plan_validation", description=__doc__)
    p.add_argument("--repeats", type=int, default=2, help="each repeat has a different seed")
    p.add_argument(
        "--speed", type=float, default=1.0, help="the engines' clock relative to the wall clock; below 1 is slower"
    )
    p.add_argument("--only", type=int, nargs="*", help="numbers of configurations, from 0")
    p.add_argument("--out", type=Path, default=Path("build/plan/against.jsonl"))
    p.add_argument("--resume", action="store_true", help="run only what is missing in --out")
    p.add_argument("--replan", action="store_true", help="plan again for the engines' results in --out")
    p.add_argument("--show", action="store_true", help="only print the table from --out")
    a = p.parse_args(arguments)
    code = 0
    if a.replan:
        _replan(a.out)
    elif not a.show:
        a.out.parent.mkdir(parents=True, exist_ok=True)
        if not a.resume:
            a.out.write_bytes(b"")
        code = _run(a)
    lines = read(a.out)
    print(tables(lines))
    if lines:
        print(f"Largest error of requests/s and P95: {worst(lines):.1%}. Written: {a.out}")
    return code


def _run(a: argparse.Namespace) -> int:
    """Returns 0, or 130 on Ctrl-C. Finished runs are saved; `--resume` runs the others."""
    done = {(line["name"], line["seed"]) for line in read(a.out)}
    wanted = [
        (repeat, number, held)
        for repeat in range(a.repeats)
        for number, held in enumerate(VALIDATION_CASES)
        if (a.only is None or number in a.only) and (held.name, seed_of(repeat, number)) not in done
    ]
    here = read_host_info(f"python -m manyeyes.planner.plan_validation {' '.join(sys.argv[1:])}")
    append_line(a.out, {"machine": asdict(here)})
    try:
        for repeat, number, held in stepwise(wanted, lambda it: f"{it[2].name}, repeat {it[0] + 1}"):
            append_line(a.out, _compare(held, seed_of(repeat, number), a.speed))
    except KeyboardInterrupt:
        return 130
    return 0


def _replan(file: Path) -> None:
    """Plans all stored runs again, after a change of the planner."""
    lines = list(read_lines(file))
    by_name = {held.name: held for held in VALIDATION_CASES}
    for line in lines:
        if "name" in line:
            outcome, line["planned"] = planned(by_name[line["name"]], line["seed"])
            line["planned_failures"] = outcome.refused + outcome.failed
    write_text(file, "".join(f"{orjson.dumps(line).decode()}\n" for line in lines))


def seed_of(repeat: int, number: int) -> int:
    return 100 * repeat + number + 1


def _compare(held: ValidationCase, seed: int, speed: float) -> dict[str, Any]:
    before = read_cpu_time()
    users = emulated(held, seed, speed)
    told = sorted(users.told, key=lambda one: one.arrived)
    outcome, said = planned(held, seed)
    return {
        "name": held.name,
        "seed": seed,
        "speed": speed,
        "machine_busy": round(read_cpu_time().share_since(before), 2),
        "latest_start_s": round(users.latest_s, 3),
        "failures": users.failures,
        "emulated": figures(held, told),
        "planned": said,
        "planned_failures": outcome.refused + outcome.failed,
        "answers": [[one.arrived, one.first_s, one.total_s] for one in told],
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
