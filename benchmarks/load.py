"""The benchmark's users: separate processes that do one kind of work against one gateway and report what they measured.

`python -m benchmarks.load` reads a `LoadSpec` as one line of JSON, prepares every image, prints `ready`, waits for a line,
does the work, and prints a `LoadReport` as one line of JSON. `UserProcesses` starts the processes and joins their reports.
"""

import asyncio
import gc
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from random import Random
from typing import Any

import orjson
import uvloop

from benchmarks.gateways.gateway import MODEL, AsyncConnection, chat_request, read_streamed_chat
from loadtest import users
from loadtest.content import SeededImage, question
from loadtest.http_client import ConnectionBroken
from loadtest.result_files import ROOT
from loadtest.users import UserConversation, UserTurn
from loadtest.virtual_user import message_content

THINK_S = 0.1
"""The mean pause before a user's next turn; each pause is 0.5 to 1.5 times as long."""
MAX_TOKENS = 32


@dataclass(frozen=True)
class BenchmarkWorkload:
    """One kind of work. `conversation(seed, user, number)` returns the n-th conversation of a user.

    A user has one conversation at a time and starts the next when the previous conversation is answered (a closed loop):
    every gateway gets exactly the same requests, and a slow gateway takes longer.
    """

    name: str
    title: str
    users_per_engine: int
    conversations_per_user: int
    conversation: Callable[[int, int, int], UserConversation]


def ask_about_document(seed: int, user: int, number: int) -> UserConversation:
    """The same image for all users, as large as the images of the other work."""
    text = question(Random(f"document {seed} {user} {number}"), 16)
    return UserConversation((UserTurn(text, (SeededImage("photo", f"document {seed}"),)),))


ALL = {
    work.name: work
    for work in (
        BenchmarkWorkload("chat", "Six turns about one image", 12, 3, users.chat_about_image),
        BenchmarkWorkload("images", "Single images, all different", 16, 8, users.ask_about_image),
        BenchmarkWorkload("document", "One document, shared by all users", 16, 12, ask_about_document),
        BenchmarkWorkload("text", "Chats without images", 16, 4, users.chat_in_text),
    )
}


ARRIVE_S = 2.0


@dataclass(frozen=True)
class LoadSpec:
    """`users`: the total number of users; this process runs those whose number is `part` modulo `parts`.

    `targets`: one address, or the addresses of all engines if clients choose an engine by conversation. `headers`: session
    headers to send: the first has the conversation's id, the second has the user's.
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
    """All times are seconds. `first_s`, `total_s` and `gap_s` (mean gap) have one value per answered request."""

    started_s: float = 0.0
    ended_s: float = 0.0
    first_s: list[float] = field(default_factory=list)
    total_s: list[float] = field(default_factory=list)
    gap_s: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=Counter)
    tokens: int = 0
    cpu_s: float = 0.0


class BenchmarkUser:
    """One user with one connection and a unique source address."""

    def __init__(
        self,
        order: LoadSpec,
        work: BenchmarkWorkload,
        number: int,
        report: LoadReport,
        data_urls: dict[SeededImage, str],
    ) -> None:
        self.order, self.work, self.number, self.report, self.data_urls = order, work, number, report, data_urls
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

    async def converse(self, conversation: UserConversation, number: int) -> None:
        targets = self.order.targets
        address = targets[(self.number + number) % len(targets)]
        names = zip(self.order.headers, (f"chat-{self.number}-{number}", f"user-{self.number}"), strict=False)
        headers = dict(names)
        messages: list[dict[str, Any]] = []
        for turn in conversation.turns:
            messages.append({"role": "user", "content": message_content(turn, self.data_urls.__getitem__)})
            text = await self.send(address, messages, headers)
            if text is None:
                return
            messages.append({"role": "assistant", "content": text})
            await asyncio.sleep(THINK_S * (0.5 + self.random.random()))

    async def send(self, address: str, messages: list[dict[str, Any]], headers: dict[str, str]) -> str | None:
        body = {"messages": messages, "model": MODEL, "max_tokens": MAX_TOKENS, "temperature": 0.7, "stream": True}
        connection = self.connections.setdefault(address, AsyncConnection(address, self.source))
        try:
            answer = await connection.send(chat_request(address, orjson.dumps(body), headers))
        except (ConnectionBroken, OSError, TimeoutError) as error:
            self.report.errors[type(error).__name__] += 1
            return None
        parsed = read_streamed_chat(answer)
        if reason := parsed.failed if answer.status == 200 else f"status {answer.status}":
            self.report.errors[reason] += 1
            return None
        self.report.first_s.append(parsed.tokens_s[0] - answer.started_s)
        self.report.total_s.append(answer.ended_s - answer.started_s)
        if len(parsed.tokens_s) > 1:
            self.report.gap_s.append((parsed.tokens_s[-1] - parsed.tokens_s[0]) / (len(parsed.tokens_s) - 1))
        self.report.tokens += len(parsed.tokens_s)
        return "".join(parsed.text)


async def run_users(users: list[BenchmarkUser], report: LoadReport) -> None:
    before = time.process_time()
    report.started_s = time.monotonic()
    await asyncio.gather(*(user.live() for user in users))
    report.ended_s = time.monotonic()
    report.cpu_s = time.process_time() - before


def main() -> int:
    order = LoadSpec(**orjson.loads(sys.stdin.readline()))
    work = ALL[order.work]
    report = LoadReport()
    numbers = range(order.part, order.users, order.parts)
    data_urls = {
        image: image.data_url()
        for user in numbers
        for number in range(order.conversations)
        for turn in work.conversation(order.seed, user, number).turns
        for image in turn.images
    }
    users = [BenchmarkUser(order, work, number, report, data_urls) for number in numbers]
    gc.collect()
    gc.freeze()
    print("ready", flush=True)
    sys.stdin.readline()
    uvloop.run(run_users(users, report))
    print(orjson.dumps(asdict(report)).decode(), flush=True)
    return 0


LIMIT_SHARE = 0.85
DEADLINE_S = 900


class UserProcesses:
    """Starts user processes that prepare their images and wait; `go` runs the work."""

    def __init__(self, order: LoadSpec, processes: int) -> None:
        self._processes = []
        for part in range(processes):
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.load"],
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
                    raise RuntimeError("a user process did not start; its error is printed above")
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
                output, _ = process.communicate(timeout=DEADLINE_S)
                if process.returncode != 0:
                    raise RuntimeError("a user process failed; its error is printed above")
                reports.append(LoadReport(**orjson.loads(output)))
            return reports
        finally:
            self.end()

    def end(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait(timeout=10)


def join_reports(reports: Sequence[LoadReport]) -> LoadReport:
    errors: Counter[str] = Counter()
    for report in reports:
        errors.update(report.errors)
    return LoadReport(
        started_s=min(report.started_s for report in reports),
        ended_s=max(report.ended_s for report in reports),
        first_s=[value for report in reports for value in report.first_s],
        total_s=[value for report in reports for value in report.total_s],
        gap_s=[value for report in reports for value in report.gap_s],
        errors=errors,
        tokens=sum(report.tokens for report in reports),
        cpu_s=sum(report.cpu_s for report in reports),
    )


def busiest_core_share(reports: Sequence[LoadReport]) -> float:
    """The fraction of a core that the busiest process used. Above LIMIT_SHARE the load generator was the limit."""
    return max(report.cpu_s / max(1e-9, report.ended_s - report.started_s) for report in reports)


if __name__ == "__main__":
    sys.exit(main())
