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

    def plan_request(self, seed: int) -> PlanRequest:
        """The plan for the engines that loadtest/scaling_report/backends.py starts: a pool with default settings."""
        pool = Pool(name="qwen3-vl-4b", model="Qwen/Qwen3-VL-4B-Instruct")
        gpu_spec = gpu_spec_of(profile.load_profile(self.profile), pool)
        return PlanRequest(self.work, gpu_spec, self.rps, 5.0, None, 0.99, seed=seed)


FOUR_B, EIGHT_B = "rtx4090-qwen3-vl-4b-fp8", "rtx4090-qwen3-vl-8b-fp8"
ONE_IMAGE = PlannedWorkload(1280, 720, output_tokens=80)
SMALLER_IMAGE = PlannedWorkload(896, 672, output_tokens=80)
CHAT = PlannedWorkload(1024, 768, turns=5, think_s=4.0, output_tokens=60)
TWO_IMAGES = PlannedWorkload(1024, 768, images=2, words=200, output_tokens=60)
LARGE_IMAGE = PlannedWorkload(1920, 1080, output_tokens=12)
VALIDATION_CASES = (
    ValidationCase("one engine, single images, low load", FOUR_B, 1, 2.5, ONE_IMAGE),
    ValidationCase("three engines, single images, high load", FOUR_B, 3, 15.0, SMALLER_IMAGE),
    ValidationCase("three engines, chats of five turns about an image", FOUR_B, 3, 12.0, CHAT, warm_s=35.0),
    ValidationCase("two engines, 8B, two images, long questions", EIGHT_B, 2, 2.4, TWO_IMAGES),
    ValidationCase("two engines, large images, short answers", FOUR_B, 2, 8.0, LARGE_IMAGE),
)


HEADERS = {"Content-Type": "application/json", "Accept": "text/event-stream"}
TIMEOUT_S = 600.0


@dataclass(frozen=True)
class EmulatedResult:
    """One request, in seconds of the engines' clock since the start. `first_s` and `total_s` are 0 if it failed."""

    arrived: float
    first_s: float
    total_s: float


def image_url(work_number: int, width: int, height: int) -> str:
    """A PNG with only a header and eight unique bytes: the emulator reads nothing else of an image."""
    header = struct.pack(">4sIIBBBBB", b"IHDR", width, height, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    data += struct.pack(">I4sQ", 8, b"IDAT", work_number)
    return "data:image/png;base64," + base64.b64encode(data).decode()


class ValidationUsers:
    """Starts each conversation when it is due, each in a separate thread."""

    def __init__(self, case: ValidationCase, seed: int, url: str, slowdown: float) -> None:
        self.case, self.seed, self.slowdown = case, seed, slowdown
        self.target = parse_target(url)
        self.results: list[EmulatedResult] = []
        self.failures: Counter[str] = Counter()
        self.latest_s = 0.0  # the longest delay of the start of a conversation

    def run(self) -> None:
        span, work = self.case.span, self.case.work
        threads = []
        self.began = time.perf_counter()
        end_s = span.warm_s + span.measured_s
        for number, arrival_s in enumerate(arrivals(self.seed, self.case.rps / work.turns, end_s)):
            time.sleep(max(0.0, self.began + arrival_s * self.slowdown - time.perf_counter()))
            self.latest_s = max(self.latest_s, time.perf_counter() - self.began - arrival_s * self.slowdown)
            threads.append(threading.Thread(target=self.run_conversation, args=(number, end_s), daemon=True))
            threads[-1].start()
        for thread in threads:
            thread.join()

    def engines_s(self, at: float) -> float:
        """Converts a wall-clock time to seconds of the engines' clock since the start."""
        return (at - self.began) / self.slowdown

    def run_conversation(self, number: int, end_s: float) -> None:
        work, conversation = self.case.work, SimulatedConversation(self.case.work, self.seed, number)
        connection = StreamingConnection(self.target, TIMEOUT_S)
        messages: list[dict[str, Any]] = []
        try:
            for turn in range(work.turns):
                if turn:
                    time.sleep(work.pause_s(self.seed, number, turn - 1) * self.slowdown)
                    if self.engines_s(time.perf_counter()) >= end_s:
                        return
                answer_tokens = len(conversation.next_job().answer)
                messages.append({"role": "user", "content": self.content(number, turn)})
                reply = self.ask(connection, messages, answer_tokens)
                if reply is None:
                    return
                messages.append({"role": "assistant", "content": reply})
        finally:
            connection.close()

    def content(self, number: int, turn: int) -> list[dict[str, Any]]:
        work = self.case.work
        urls = [
            image_url(number * work.images + index, work.width, work.height)
            for index in range(work.images * (turn == 0))
        ]
        text = " ".join(f"w{number}.{turn}.{index}" for index in range(work.words))
        return [*({"type": "image_url", "image_url": {"url": url}} for url in urls), {"type": "text", "text": text}]

    def ask(self, connection: StreamingConnection, messages: list[dict[str, Any]], tokens: int) -> str | None:
        body = {"model": MODEL, "messages": messages, "max_tokens": tokens, "ignore_eos": True, "stream": True}
        result = exchange(connection, orjson.dumps(body), HEADERS)
        arrived_s = self.engines_s(result.began)
        if result.failed:
            self.failures[result.failed] += 1
            self.results.append(EmulatedResult(arrived_s, 0.0, 0.0))
            return None
        first_s, ended_s = self.engines_s(result.stream.tokens_s[0]), self.engines_s(result.ended)
        self.results.append(
            EmulatedResult(round(arrived_s, 4), round(first_s - arrived_s, 4), round(ended_s - arrived_s, 4))
        )
        return "".join(result.stream.text)


def emulated(case: ValidationCase, seed: int, speed: float) -> ValidationUsers:
    """Runs the configuration on processes behind the real gateway."""
    with (
        tempfile.TemporaryDirectory(prefix="manyeyes-planner-") as folder,
        ProcessBackend(speed, case.profile).at(case.engines, Path(folder)) as backend,
    ):
        users = ValidationUsers(case, seed, backend.url, backend.slowdown)
        users.run()
    return users


def figures(case: ValidationCase, results: Sequence[EmulatedResult]) -> dict[str, float]:
    """The figures of a run, over the requests that arrived in the measured time."""
    span = case.span
    end_s = span.warm_s + span.measured_s
    arrived = [result for result in results if span.warm_s <= result.arrived < end_s and result.total_s]
    in_time = [
        result for result in results if result.total_s and span.warm_s <= result.arrived + result.total_s < end_s
    ]
    return _figures(
        len(in_time) / span.measured_s, [result.total_s for result in arrived], [result.first_s for result in arrived]
    )


def planned(case: ValidationCase, seed: int) -> tuple[SimulationResult, dict[str, float]]:
    outcome = Simulation(case.plan_request(seed), case.engines, case.span).run()
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
    for case in VALIDATION_CASES:
        if selected := [line for line in lines if line["name"] == case.name]:
            requests = " + ".join(f"{line['emulated']['requests']:.0f}" for line in selected)
            rows.append((case.name, requests, *(_cell(selected, figure) for figure in COMPARED)))
    return markdown_table(("configuration", "requests", *COMPARED), rows)


def _cell(selected: Sequence[dict[str, Any]], figure: str) -> str:
    emulated_mean, planned_mean = (mean(line[side][figure] for line in selected) for side in ("emulated", "planned"))
    errors = ", ".join(f"{line['planned'][figure] / line['emulated'][figure] - 1:+.1%}" for line in selected)
    return f"{emulated_mean:.3g} / {planned_mean:.3g}<br>{errors}"


def max_error(lines: Sequence[dict[str, Any]]) -> float:
    """The largest relative error of requests/s and P95 over all repeats."""
    errors = [
        line["planned"][figure] / line["emulated"][figure] - 1 for line in lines for figure in ("requests/s", "P95")
    ]
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
        print(f"Largest error of requests/s and P95: {max_error(lines):.1%}. Written: {a.out}")
    return code


def _run(a: argparse.Namespace) -> int:
    """Returns 0, or 130 on Ctrl-C. Finished runs are saved; `--resume` runs the others."""
    finished = {(line["name"], line["seed"]) for line in read(a.out)}
    runs = [
        (repeat, number, case)
        for repeat in range(a.repeats)
        for number, case in enumerate(VALIDATION_CASES)
        if (a.only is None or number in a.only) and (case.name, seed_of(repeat, number)) not in finished
    ]
    host = read_host_info(f"python -m manyeyes.planner.plan_validation {' '.join(sys.argv[1:])}")
    append_line(a.out, {"machine": asdict(host)})
    try:
        for repeat, number, case in stepwise(runs, lambda run: f"{run[2].name}, repeat {run[0] + 1}"):
            append_line(a.out, _compare(case, seed_of(repeat, number), a.speed))
    except KeyboardInterrupt:
        return 130
    return 0


def _replan(file: Path) -> None:
    """Plans all stored runs again, after a change of the planner."""
    lines = list(read_lines(file))
    by_name = {case.name: case for case in VALIDATION_CASES}
    for line in lines:
        if "name" in line:
            outcome, line["planned"] = planned(by_name[line["name"]], line["seed"])
            line["planned_failures"] = outcome.refused + outcome.failed
    write_text(file, "".join(f"{orjson.dumps(line).decode()}\n" for line in lines))


def seed_of(repeat: int, number: int) -> int:
    return 100 * repeat + number + 1


def _compare(case: ValidationCase, seed: int, speed: float) -> dict[str, Any]:
    before = read_cpu_time()
    users = emulated(case, seed, speed)
    results = sorted(users.results, key=lambda result: result.arrived)
    outcome, planned_figures = planned(case, seed)
    return {
        "name": case.name,
        "seed": seed,
        "speed": speed,
        "machine_busy": round(read_cpu_time().share_since(before), 2),
        "latest_start_s": round(users.latest_s, 3),
        "failures": users.failures,
        "emulated": figures(case, results),
        "planned": planned_figures,
        "planned_failures": outcome.refused + outcome.failed,
        "answers": [[result.arrived, result.first_s, result.total_s] for result in results],
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
