"""Client for the engine under measurement: identifies it, and times single and concurrent requests."""

import re
import time
import urllib.error
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Barrier
from typing import Any

import orjson

from loadtest.http_client import StreamingConnection, TargetUrl, bearer, fetch, parse_target
from loadtest.virtual_user import exchange

HEADERS = {"Content-Type": "application/json", "Accept": "text/event-stream", "User-Agent": "manyeyes-calibrate"}
TIMEOUT_S = 120.0
Content = str | list[dict[str, Any]]


class CannotMeasure(Exception):
    """The engine is unreachable, rejects requests, or is not a single engine. `str()` has the reason and what to do."""


@dataclass(frozen=True)
class TimedAnswer:
    """One answered request. Times are perf_counter() seconds; `tokens_s`: arrival times of the tokens."""

    started_s: float
    tokens_s: tuple[float, ...]
    ended_s: float
    prompt_tokens: int
    answer_tokens: int

    @property
    def first_s(self) -> float:
        return self.tokens_s[0] - self.started_s

    @property
    def total_s(self) -> float:
        return self.ended_s - self.started_s


@dataclass
class MeasuredEngine:
    """`url` is the address of one engine: a gateway would mix the caches and queues of several engines."""

    url: str
    model: str = ""
    key: str = ""
    target: TargetUrl = field(init=False)

    def __post_init__(self) -> None:
        try:
            self.target = parse_target(self.url)
        except ValueError as error:
            raise CannotMeasure(str(error)) from None

    def identify(self) -> None:
        """Sets the model and verifies that this is a vLLM engine. Raises CannotMeasure."""
        models = [model["id"] for model in orjson.loads(self._get("/v1/models")).get("data", ())]
        if not models:
            raise CannotMeasure(f"{self.url} serves no model. Check that it is the address of an engine.")
        if self.model and self.model not in models:
            raise CannotMeasure(f"MODEL={self.model}: {self.url} serves {', '.join(models)}")
        self.model = self.model or models[0]
        if not self.metric_text():
            raise CannotMeasure(
                f"{self.url} has no vLLM metrics. Give the address of one engine, not the gateway's: "
                "docker compose port gpu-0 8000, or its address in config/cluster.yaml."
            )

    def version(self) -> str:
        try:
            return str(orjson.loads(self._get("/version"))["version"])
        except (CannotMeasure, KeyError, orjson.JSONDecodeError):
            return "unknown"

    def metric_text(self) -> str:
        """Returns vLLM's lines of /metrics; empty if there are none."""
        try:
            text = self._get("/metrics").decode()
        except CannotMeasure:
            return ""
        return "\n".join(line for line in text.splitlines() if line.startswith("vllm:"))

    def metric(self, name: str) -> float:
        values = re.findall(rf"^vllm:{name}(?:{{[^}}]*}})? (\S+)$", self.metric_text(), re.MULTILINE)
        return sum(map(float, values))

    def kv_cache_tokens(self) -> int | None:
        """Reads the size from vllm:cache_config_info; None if it is not there."""
        line = next((line for line in self.metric_text().splitlines() if line.startswith("vllm:cache_config_info")), "")
        blocks, size = re.search(r'num_gpu_blocks="(\d+)"', line), re.search(r'block_size="(\d+)"', line)
        return int(blocks[1]) * int(size[1]) if blocks and size else None

    def health_s(self) -> float:
        started_s = time.perf_counter()
        self._get("/health")
        return time.perf_counter() - started_s

    def ask(self, content: Content, max_tokens: int) -> TimedAnswer:
        """Requests an answer of exactly `max_tokens` tokens to `content`. Raises CannotMeasure."""
        return self._ask(StreamingConnection(self.target, TIMEOUT_S), self._body(content, max_tokens))

    def ask_together(
        self, contents: Sequence[Content], max_tokens: int, while_running: Callable[[], None] | None = None
    ) -> list[TimedAnswer]:
        """Sends all requests at the same time, each on a separate connection. `while_running` runs once they are sent."""
        bodies = [self._body(content, max_tokens) for content in contents]
        start = Barrier(len(bodies) + 1)

        def send(body: bytes) -> TimedAnswer:
            connection = StreamingConnection(self.target, TIMEOUT_S)
            start.wait()
            return self._ask(connection, body)

        with ThreadPoolExecutor(len(bodies)) as threads:
            answers = [threads.submit(send, body) for body in bodies]
            start.wait()
            if while_running is not None:
                while_running()
            return [answer.result() for answer in answers]

    def _body(self, content: Content, max_tokens: int) -> bytes:
        return orjson.dumps(
            {
                "model": self.model,
                "messages": [{"role": "user", "content": content}],
                "max_tokens": max_tokens,
                "ignore_eos": True,
                "temperature": 0,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        )

    def _ask(self, connection: StreamingConnection, body: bytes) -> TimedAnswer:
        result = exchange(connection, body, {**HEADERS, **bearer(self.key)})
        connection.close()
        stream = result.stream
        if result.broken:
            raise CannotMeasure(f"{self.url} aborted the request: {result.broken}. See the engine's log.")
        if result.status != 200:
            raise CannotMeasure(f"{self.url} answered {result.status}: {_message(result.raw)}")
        if stream.failed:
            raise CannotMeasure(f"{self.url} did not complete its answer: {stream.failed}. See the engine's log.")
        return TimedAnswer(
            started_s=result.began,
            tokens_s=tuple(stream.tokens_s),
            ended_s=result.ended,
            prompt_tokens=int(stream.usage.get("prompt_tokens", 0)),
            answer_tokens=stream.tokens,
        )

    def _get(self, path: str) -> bytes:
        try:
            return fetch(
                f"{self.url.rstrip('/').removesuffix('/v1')}{path}", None, bearer(self.key), timeout_s=TIMEOUT_S
            )
        except urllib.error.HTTPError as error:
            raise CannotMeasure(f"{self.url}{path} answered {error.code}. Check the URL and the API key.") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise CannotMeasure(f"{self.url} cannot be reached: {reason}. Check that the engine runs.") from None


def _message(raw: bytes) -> str:
    try:
        return str(orjson.loads(raw)["error"]["message"])[:200]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return raw[:200].decode(errors="replace")
