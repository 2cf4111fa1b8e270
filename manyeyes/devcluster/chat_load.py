"""Simulates users who chat through the gateway concurrently, each with one streamed answer after the other, and records
the results."""

import asyncio
import contextlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx


@dataclass(frozen=True)
class ChatAnswer:
    outcome: str
    """answered: the stream ended with its marker. cut: the connection broke after the first byte (vLLM sends the
    headers of a stream before its first token), and the client noticed it. failed: an error before the first byte.
    pretended: incomplete, but the client could not notice it."""
    engine: str = ""
    text: str = ""


@dataclass
class ChatLoad:
    answers: list[ChatAnswer] = field(default_factory=list)
    is_running: bool = True

    @property
    def outcomes(self) -> Counter[str]:
        return Counter(answer.outcome for answer in self.answers)

    def answered_by(self, since: int = 0) -> Counter[str]:
        return Counter(answer.engine for answer in self.answers[since:] if answer.outcome == "answered")

    def assert_nothing_lost(self, cut_on: set[str]) -> None:
        """Asserts that no request failed before its first byte, no incomplete answer looked complete, and only engines
        in `cut_on` cut answers."""
        lost = [answer for answer in self.answers if answer.outcome in ("failed", "pretended")]
        assert not lost, (len(lost), len(self.answers), lost[:5])
        assert {answer.engine for answer in self.answers if answer.outcome == "cut"} <= cut_on
        assert self.outcomes["answered"] > 50, self.outcomes


@contextlib.contextmanager
def chat_load(url: str, model: str, users: int = 30, turns: int = 4) -> Iterator[ChatLoad]:
    """Runs `users` users until the end of the context. At the end every user finishes the running answer."""
    load = ChatLoad()
    thread = threading.Thread(target=lambda: asyncio.run(_all(url, model, users, turns, load)))
    thread.start()
    try:
        yield load
    finally:
        load.is_running = False
        thread.join(timeout=120)
        assert not thread.is_alive(), "an answer did not end within 120 s"


async def _all(url: str, model: str, users: int, turns: int, load: ChatLoad) -> None:
    limits = httpx.Limits(max_connections=users)
    async with httpx.AsyncClient(timeout=100, limits=limits) as client, asyncio.TaskGroup() as tasks:
        for user in range(users):
            tasks.create_task(_user(client, url, model, user, turns, load))


async def _user(client: httpx.AsyncClient, url: str, model: str, user: int, turns: int, load: ChatLoad) -> None:
    chat = 0
    while load.is_running:
        chat += 1
        messages = [{"role": "user", "content": f"User {user}, chat {chat}"}]
        for turn in range(turns):
            if not load.is_running:
                return
            answer = await _ask(client, url, {"model": model, "messages": messages, "max_tokens": 16, "stream": True})
            load.answers.append(answer)
            messages += [{"role": "assistant", "content": answer.text}, {"role": "user", "content": f"Turn {turn}"}]
            await asyncio.sleep(0.1)


async def _ask(client: httpx.AsyncClient, url: str, body: dict[str, object]) -> ChatAnswer:
    raw, engine = b"", ""
    try:
        async with client.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
            engine = response.headers.get("X-ManyEyes-Engine", "")
            async for chunk in response.aiter_bytes():
                raw += chunk
            status = response.status_code
    except httpx.HTTPError as error:
        return ChatAnswer("cut" if engine else "failed", engine, repr(error))
    if status != 200:
        return ChatAnswer("failed", engine, f"{status} {raw[:300]!r}")
    if not raw.endswith(b"data: [DONE]\n\n") or b'"abort"' in raw:
        return ChatAnswer("cut" if b'"error"' in raw else "pretended", engine, repr(raw[-200:]))
    deltas = (json.loads(line[6:]) for line in raw.splitlines() if line.startswith(b"data: {"))
    texts = [delta["choices"][0]["delta"].get("content") or "" for delta in deltas if delta["choices"]]
    return ChatAnswer("answered", engine, "".join(texts))
