"""The users: processes of their own that do one kind of work against one gateway and report what they saw.

`python -m benchmarks.measure.load` reads a `LoadSpec` as one line of JSON, prepares every picture, prints `ready`, waits for a
line, does the work and prints a `LoadReport` as one line of JSON. `UserProcesses` starts them together and joins their reports.
"""

import asyncio
import gc
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from random import Random
from typing import Any

import orjson
import uvloop

from benchmarks import workloads as works
from benchmarks.gateways.gateway import MODEL
from benchmarks.measure.http import AsyncConnection, chat_request, read_streamed_chat
from benchmarks.workloads import BenchmarkWorkload, WorkloadConversation, WorkloadTurn, data_url
from loadtest.host_info import ROOT
from loadtest.http_client import ConnectionBroken

ARRIVE_S = 2.0


@dataclass(frozen=True)
class LoadSpec:
    """`users`: how many in all; this process takes those whose number is `part` modulo `parts`.

    `targets`: one address, or all engines' where clients choose by conversation. `headers`: session headers to send, the
    first with the conversation's name, the second with the user's.
    """

    work: str
    seed: int
    users: int
    conversations: int
    targets: list[str]
    headers: list[str]
    part: int = 0
    parts: int = 1


@dataclass
class LoadReport:
    """Seconds throughout; `first_s`, `total_s` and `gap_s` hold one value per answered request (its mean gap)."""

    started_s: float = 0.0
    ended_s: float = 0.0
    first_s: list[float] = field(default_factory=list)
    total_s: list[float] = field(default_factory=list)
    gap_s: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    tokens: int = 0
    cpu_s: float = 0.0


class BenchmarkUser:
    """One person with one connection and an address of its own."""

    def __init__(
        self, order: LoadSpec, work: BenchmarkWorkload, number: int, report: LoadReport, pictures: dict[int, str]
    ) -> None:
        self.order, self.work, self.number, self.report, self.pictures = order, work, number, report, pictures
        self.source = f"127.2.{number // 250}.{number % 250 + 1}"
        self.connections: dict[str, AsyncConnection] = {}
        self.random = Random(f"pauses {order.seed} {number}")

    async def live(self) -> None:
        await asyncio.sleep(ARRIVE_S * self.number / self.order.users)
        try:
            for number in range(self.order.conversations):
                await self.converse(self.work.conversation(self.order.seed, self.number, number), number)
        finally:
            for connection in self.connections.values():
                connection.close()

    async def converse(self, conversation: WorkloadConversation, number: int) -> None:
        targets = self.order.targets
        address = targets[(self.number + number) % len(targets)]
        names = zip(self.order.headers, (f"chat-{conversation.name}", f"user-{self.number}"), strict=False)
        headers = dict(names)
        messages: list[dict[str, Any]] = []
        for turn in conversation.turns:
            messages.append({"role": "user", "content": self.content(turn)})
            text = await self.send(address, messages, headers)
            if text is None:
                return
            messages.append({"role": "assistant", "content": text})
            await asyncio.sleep(self.work.think_s * (0.5 + self.random.random()))

    def content(self, turn: WorkloadTurn) -> Any:
        if turn.picture is None:
            return turn.text
        picture = {"type": "image_url", "image_url": {"url": self.pictures[turn.picture]}}
        return [picture, {"type": "text", "text": turn.text}]

    async def send(self, address: str, messages: list[dict[str, Any]], headers: dict[str, str]) -> str | None:
        body = orjson.dumps(
            {
                "messages": messages,
                "model": MODEL,
                "max_tokens": self.work.max_tokens,
                "temperature": 0.7,
                "stream": True,
            }
        )
        connection = self.connections.setdefault(address, AsyncConnection(address, self.source))
        try:
            answer = await connection.send(chat_request(address, body, headers))
        except (ConnectionBroken, OSError, TimeoutError) as error:
            self.failed(type(error).__name__)
            return None
        if answer.status != 200:
            self.failed(f"status {answer.status}")
            return None
        said = read_streamed_chat(answer)
        if said.failed:
            self.failed(said.failed)
            return None
        self.report.first_s.append(said.tokens_s[0] - answer.started_s)
        self.report.total_s.append(answer.ended_s - answer.started_s)
        if len(said.tokens_s) > 1:
            self.report.gap_s.append((said.tokens_s[-1] - said.tokens_s[0]) / (len(said.tokens_s) - 1))
        self.report.tokens += len(said.tokens_s)
        return "".join(said.text)

    def failed(self, why: str) -> None:
        self.report.errors[why] = self.report.errors.get(why, 0) + 1


async def run_users(order: LoadSpec, users: list[BenchmarkUser], report: LoadReport) -> None:
    before = time.process_time()
    report.started_s = time.monotonic()
    await asyncio.gather(*(user.live() for user in users))
    report.ended_s = time.monotonic()
    report.cpu_s = time.process_time() - before


def main() -> int:
    order = LoadSpec(**orjson.loads(sys.stdin.readline()))
    work = works.ALL[order.work]
    report = LoadReport()
    numbers = range(order.part, order.users, order.parts)
    pictures = {
        turn.picture: data_url(order.seed, turn.picture)
        for user in numbers
        for number in range(order.conversations)
        for turn in work.conversation(order.seed, user, number).turns
        if turn.picture is not None
    }
    users = [BenchmarkUser(order, work, number, report, pictures) for number in numbers]
    gc.collect()
    gc.freeze()
    print("ready", flush=True)
    sys.stdin.readline()
    uvloop.run(run_users(order, users, report))
    print(orjson.dumps(asdict(report)).decode(), flush=True)
    return 0


LIMIT_SHARE = 0.85
DEADLINE_S = 900


class UserProcesses:
    """Prepared and waiting: `go` does the work."""

    def __init__(self, order: LoadSpec, processes: int) -> None:
        self._processes = []
        for part in range(processes):
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.measure.load"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=ROOT,
                start_new_session=True,
            )
            self._processes.append(process)
            self._send(process, orjson.dumps(asdict(replace(order, part=part, parts=processes))))
        try:
            for process in self._processes:
                assert process.stdout
                if process.stdout.readline().strip() != b"ready":
                    raise RuntimeError("a process of users did not start; its error is above")
        except BaseException:
            self.end()
            raise

    @staticmethod
    def _send(process: "subprocess.Popen[bytes]", line: bytes) -> None:
        assert process.stdin
        process.stdin.write(line + b"\n")
        process.stdin.flush()

    def go(self) -> list[LoadReport]:
        try:
            for process in self._processes:
                self._send(process, b"go")
            reports = []
            for process in self._processes:
                said, _ = process.communicate(timeout=DEADLINE_S)
                if process.returncode != 0:
                    raise RuntimeError("a process of users failed; its error is above")
                reports.append(LoadReport(**orjson.loads(said)))
            return reports
        finally:
            self.end()

    def end(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait(timeout=10)


def join_reports(reports: Sequence[LoadReport]) -> LoadReport:
    """One report of several processes' users."""

    def all_of(values: Callable[[LoadReport], list[float]]) -> list[float]:
        return [value for report in reports for value in values(report)]

    errors: dict[str, int] = {}
    for report in reports:
        for why, count in report.errors.items():
            errors[why] = errors.get(why, 0) + count
    return LoadReport(
        started_s=min(report.started_s for report in reports),
        ended_s=max(report.ended_s for report in reports),
        first_s=all_of(lambda r: r.first_s),
        total_s=all_of(lambda r: r.total_s),
        gap_s=all_of(lambda r: r.gap_s),
        errors=errors,
        tokens=sum(report.tokens for report in reports),
        cpu_s=sum(report.cpu_s for report in reports),
    )


def busiest_core_share(reports: Sequence[LoadReport]) -> float:
    """The share of a core that the busiest of these processes used; above LIMIT_SHARE the users were the limit."""
    return max(report.cpu_s / max(1e-9, report.ended_s - report.started_s) for report in reports)


if __name__ == "__main__":
    sys.exit(main())
