"""The users: processes of their own that do one kind of work against one gateway and report what they saw.

`python -m benchmarks.load` reads a `LoadSpec` as one line of JSON, prepares every picture, prints `ready`, waits for a
line, does the work and prints a `LoadReport` as one line of JSON. `UserProcesses` starts them together and joins their reports.
They have an HTTP/1.1 client of their own on asyncio that costs little and knows when each piece of an answer arrived: a
library would be the largest consumer of CPU in a run with thousands of streamed chunks a second.
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
from time import perf_counter
from typing import Any, cast

import httptools
import orjson
import uvloop

from benchmarks.gateways.gateway import KEY, MODEL
from loadtest import users
from loadtest.content import SeededPicture, question
from loadtest.http_client import ConnectionBroken
from loadtest.result_files import ROOT
from loadtest.users import UserConversation, UserTurn
from loadtest.virtual_user import CompletionStream, message_content

THINK_S = 0.1
"""The pause before a user's next turn lies between half of that and one and a half."""
MAX_TOKENS = 32


@dataclass(frozen=True)
class BenchmarkWorkload:
    """A user has one conversation at a time, and starts the next when the last one is answered (a closed loop): every gateway
    gets exactly the same requests, and a slow one takes longer. `conversation(seed, user, number)` is the n-th of a user."""

    name: str
    title: str
    users_per_engine: int
    conversations_per_user: int
    conversation: Callable[[int, int, int], UserConversation]


def ask_about_document(seed: int, user: int, number: int) -> UserConversation:
    """As large as the other pictures."""
    text = question(Random(f"document {seed} {user} {number}"), 16)
    return UserConversation((UserTurn(text, (SeededPicture("photo", f"document {seed}"),)),))


ALL = {
    work.name: work
    for work in (
        BenchmarkWorkload("chat", "Six turns about one picture", 12, 3, users.chat_about_image),
        BenchmarkWorkload("images", "Single pictures, all different", 16, 8, users.ask_about_image),
        BenchmarkWorkload("document", "One document, asked by everybody", 16, 12, ask_about_document),
        BenchmarkWorkload("text", "Chats without pictures", 16, 4, users.chat_in_text),
    )
}


@dataclass
class HttpAnswer:
    """Times are perf_counter() seconds. `pieces`: parts of the body, each with the time of the read that brought it."""

    started_s: float
    status: int = 0
    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    ended_s: float = 0.0

    @property
    def body(self) -> bytes:
        return b"".join(piece for _, piece in self.pieces)


class AsyncConnection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self, address: str, source: str | None = None) -> None:
        self._host, _, port = address.partition(":")
        self._port = int(port)
        self._source = source
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[HttpAnswer] | None = None
        self._answer = HttpAnswer(0)
        self._now = 0.0

    async def send(self, request: bytes, deadline_s: float = 180) -> HttpAnswer:
        """Sends a whole request and returns the whole answer. Raises ConnectionBroken, OSError or TimeoutError."""
        loop = asyncio.get_running_loop()
        if self._transport is None or self._transport.is_closing():
            local = (self._source, 0) if self._source else None
            await loop.create_connection(lambda: self, self._host, self._port, local_addr=local)
        assert self._transport is not None
        self._done = loop.create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._answer = HttpAnswer(perf_counter())
        self._transport.write(request)
        try:
            async with asyncio.timeout(deadline_s):
                return await self._done
        except BaseException:
            self.close()
            raise
        finally:
            self._done = None

    def close(self) -> None:
        if self._transport:
            self._transport.abort()
            self._transport = None

    # --- what asyncio and httptools call --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._fail(str(error or "closed in the middle of an answer"))

    def data_received(self, data: bytes) -> None:
        self._now = perf_counter()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"not HTTP: {error}")
            self.close()

    def on_body(self, content: bytes) -> None:
        self._answer.pieces.append((self._now, content))

    def on_message_complete(self) -> None:
        self._answer.status = self._parser.get_status_code()
        self._answer.ended_s = self._now
        if self._done and not self._done.done():
            self._done.set_result(self._answer)
        if not self._parser.should_keep_alive():
            self.close()

    def _fail(self, why: str) -> None:
        if self._done and not self._done.done():
            self._done.set_exception(ConnectionBroken(why))


def chat_request(address: str, body: bytes, headers: dict[str, str] | None = None) -> bytes:
    """A chat request as OpenAI's client sends it, with its key."""
    more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {address}\r\nAccept: application/json\r\n"
        f"Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    )
    return head.encode() + body


def read_streamed_chat(answer: HttpAnswer) -> CompletionStream:
    """The answer's events, each with the time of the read that ended it."""
    stream = CompletionStream()
    for now, piece in answer.pieces:
        stream.feed(now, piece)
    return stream


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
    errors: dict[str, int] = field(default_factory=Counter)
    tokens: int = 0
    cpu_s: float = 0.0


class BenchmarkUser:
    """One person with one connection and an address of its own."""

    def __init__(
        self,
        order: LoadSpec,
        work: BenchmarkWorkload,
        number: int,
        report: LoadReport,
        pictures: dict[SeededPicture, str],
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

    async def converse(self, conversation: UserConversation, number: int) -> None:
        targets = self.order.targets
        address = targets[(self.number + number) % len(targets)]
        names = zip(self.order.headers, (f"chat-{self.number}-{number}", f"user-{self.number}"), strict=False)
        headers = dict(names)
        messages: list[dict[str, Any]] = []
        for turn in conversation.turns:
            messages.append({"role": "user", "content": message_content(turn, self.pictures.__getitem__)})
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
        said = read_streamed_chat(answer)
        if why := said.failed if answer.status == 200 else f"status {answer.status}":
            self.report.errors[why] += 1
            return None
        self.report.first_s.append(said.tokens_s[0] - answer.started_s)
        self.report.total_s.append(answer.ended_s - answer.started_s)
        if len(said.tokens_s) > 1:
            self.report.gap_s.append((said.tokens_s[-1] - said.tokens_s[0]) / (len(said.tokens_s) - 1))
        self.report.tokens += len(said.tokens_s)
        return "".join(said.text)


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
    pictures = {
        picture: picture.data_url()
        for user in numbers
        for number in range(order.conversations)
        for turn in work.conversation(order.seed, user, number).turns
        for picture in turn.pictures
    }
    users = [BenchmarkUser(order, work, number, report, pictures) for number in numbers]
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
    """Prepared and waiting: `go` does the work."""

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
    """The share of a core that the busiest of these processes used; above LIMIT_SHARE the users were the limit."""
    return max(report.cpu_s / max(1e-9, report.ended_s - report.started_s) for report in reports)


if __name__ == "__main__":
    sys.exit(main())
