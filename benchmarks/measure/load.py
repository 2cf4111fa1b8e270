"""The users: a process of its own that does one kind of work against one gateway and says what it saw.

`python -m benchmarks.measure.load` reads an `Order` as one line of JSON, prepares every picture, prints `ready`, waits for a
line, does the work and prints a `Report` as one line of JSON.
"""

import asyncio
import gc
import sys
import time
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any

import orjson
import uvloop

from benchmarks import workloads as works
from benchmarks.gateways.gateway import MODEL
from benchmarks.measure.http import BrokenAnswer, Connection, request, streamed
from benchmarks.workloads.pictures import data_url
from benchmarks.workloads.work import Conversation, Turn, Work

ARRIVE_S = 2.0


@dataclass(frozen=True)
class Order:
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
class Report:
    """Seconds throughout; `first_s`, `total_s` and `gap_s` hold one value per answered request (its mean gap)."""

    started_s: float = 0.0
    ended_s: float = 0.0
    first_s: list[float] = field(default_factory=list)
    total_s: list[float] = field(default_factory=list)
    gap_s: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    tokens: int = 0
    cpu_s: float = 0.0


class User:
    """One person with one connection and an address of its own."""

    def __init__(self, order: Order, work: Work, number: int, report: Report, pictures: dict[int, str]) -> None:
        self.order, self.work, self.number, self.report, self.pictures = order, work, number, report, pictures
        self.source = f"127.2.{number // 250}.{number % 250 + 1}"
        self.connections: dict[str, Connection] = {}
        self.random = Random(f"pauses {order.seed} {number}")

    async def live(self) -> None:
        await asyncio.sleep(ARRIVE_S * self.number / self.order.users)
        try:
            for number in range(self.order.conversations):
                await self.talk(self.work.conversation(self.order.seed, self.number, number), number)
        finally:
            for connection in self.connections.values():
                connection.close()

    async def talk(self, conversation: Conversation, number: int) -> None:
        targets = self.order.targets
        address = targets[(self.number + number) % len(targets)]
        names = zip(self.order.headers, (f"chat-{conversation.name}", f"user-{self.number}"), strict=False)
        headers = dict(names)
        messages: list[dict[str, Any]] = []
        for turn in conversation.turns:
            messages.append({"role": "user", "content": self.content(turn)})
            text = await self.ask(address, messages, headers)
            if text is None:
                return
            messages.append({"role": "assistant", "content": text})
            await asyncio.sleep(self.work.think_s * (0.5 + self.random.random()))

    def content(self, turn: Turn) -> Any:
        if turn.picture is None:
            return turn.text
        picture = {"type": "image_url", "image_url": {"url": self.pictures[turn.picture]}}
        return [picture, {"type": "text", "text": turn.text}]

    async def ask(self, address: str, messages: list[dict[str, Any]], headers: dict[str, str]) -> str | None:
        body = orjson.dumps(
            {
                "messages": messages,
                "model": MODEL,
                "max_tokens": self.work.max_tokens,
                "temperature": 0.7,
                "stream": True,
            }
        )
        connection = self.connections.setdefault(address, Connection(address, self.source))
        try:
            answer = await connection.ask(request(address, body, headers))
        except (BrokenAnswer, OSError, TimeoutError) as error:
            self.failed(type(error).__name__)
            return None
        if answer.status != 200:
            self.failed(f"status {answer.status}")
            return None
        said = streamed(answer)
        if not said.complete or said.finish_reason not in ("length", "stop") or not said.words_s:
            self.failed(f"finish_reason {said.finish_reason}" if said.complete else "cut short")
            return None
        self.report.first_s.append(said.words_s[0] - answer.started_s)
        self.report.total_s.append(answer.ended_s - answer.started_s)
        if len(said.words_s) > 1:
            self.report.gap_s.append((said.words_s[-1] - said.words_s[0]) / (len(said.words_s) - 1))
        self.report.tokens += len(said.words_s)
        return said.text

    def failed(self, why: str) -> None:
        self.report.errors[why] = self.report.errors.get(why, 0) + 1


async def do(order: Order, users: list[User], report: Report) -> None:
    before = time.process_time()
    report.started_s = time.monotonic()
    await asyncio.gather(*(user.live() for user in users))
    report.ended_s = time.monotonic()
    report.cpu_s = time.process_time() - before


def main() -> int:
    order = Order(**orjson.loads(sys.stdin.readline()))
    work = works.ALL[order.work]
    report = Report()
    numbers = range(order.part, order.users, order.parts)
    pictures = {
        turn.picture: data_url(order.seed, turn.picture)
        for user in numbers
        for number in range(order.conversations)
        for turn in work.conversation(order.seed, user, number).turns
        if turn.picture is not None
    }
    users = [User(order, work, number, report, pictures) for number in numbers]
    gc.collect()
    gc.freeze()
    print("ready", flush=True)
    sys.stdin.readline()
    uvloop.run(do(order, users, report))
    print(orjson.dumps(asdict(report)).decode(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
