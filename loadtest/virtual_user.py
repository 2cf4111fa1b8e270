"""One simulated user: sends each turn of a conversation with its history and reads the streamed answer as it arrives."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any
from uuid import uuid4

import orjson

from loadtest.content import SeededImage
from loadtest.http_client import ConnectionBroken, StreamingConnection, TargetUrl, bearer
from loadtest.statistics import Sample
from loadtest.users import Scenario, UserConversation, UserTurn
from manyeyes.sse import EventStreamParser

_DONE = b"[DONE]"
GOOD_FINISH_REASONS = ("stop", "length")


@dataclass
class CompletionStream:
    """A streamed chat completion. `tokens_s`: the arrival time of each event with text.

    vLLM may put several tokens into one event; `usage` has their number.
    """

    text: list[str] = field(default_factory=list)
    tokens_s: list[float] = field(default_factory=list)
    finish_reason: str = ""
    error: str = ""
    done: bool = False
    usage: dict[str, Any] = field(default_factory=dict)
    _parser: EventStreamParser = field(default_factory=EventStreamParser)

    def feed(self, at_s: float, piece: bytes) -> None:
        for data in self._parser.feed(piece):
            if data.strip() == _DONE:
                self.done = True
            else:
                self._read_event(at_s, data)

    def _read_event(self, at_s: float, data: bytes) -> None:
        try:
            event = orjson.loads(data)
        except orjson.JSONDecodeError:
            self.error = "an event that is not JSON"
            return
        if "error" in event:
            self.error = "error in the stream"
            return
        self.usage = event.get("usage") or self.usage
        for choice in event.get("choices") or ():
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            if text := (choice.get("delta") or {}).get("content"):
                self.text.append(text)
                self.tokens_s.append(at_s)

    @property
    def tokens(self) -> int:
        return int(self.usage.get("completion_tokens") or len(self.tokens_s))

    @property
    def failed(self) -> str:
        if self.error:
            return self.error
        if self.finish_reason and self.finish_reason not in GOOD_FINISH_REASONS:
            return f"finish_reason {self.finish_reason}"
        if not self.done:
            return "cut before [DONE]"
        if not self.tokens_s:
            return "no token"
        return "" if self.finish_reason else "no finish_reason"


PATH = "/v1/chat/completions"
AFTER_ERROR_S = 3.0


@dataclass(frozen=True)
class RequestSettings:
    """Settings shared by all requests of a run.

    `slowdown`: wall-clock seconds per second of the engines' clock. `pause`: factor for every pause; 0 means no pauses.
    """

    to: TargetUrl
    model: str
    key: str = ""
    trusted: str = ""
    timeout_s: float = 120.0
    slowdown: float = 1.0
    pause: float = 1.0
    page_key: str = ""
    """Opens the gateway's internal port. Only that port may get it."""

    def headers(self) -> dict[str, str]:
        return {
            "Content-Type": "application/json",
            "Accept": "text/event-stream",
            "User-Agent": "manyeyes-loadtest",
            **bearer(self.key),
            **({"X-ManyEyes-Page-Key": self.page_key} if self.page_key else {}),
            # The operator's requests belong to no API key.
            **({"X-ManyEyes-Key": "-"} if self.page_key and not self.key else {}),
        }


@dataclass
class Exchange:
    """One request and its response. Times are perf_counter() seconds.

    `broken`: why the connection failed before the response was complete.
    """

    began: float
    status: int = 0
    engine: str = ""
    pool: str = ""
    stream: CompletionStream = field(default_factory=CompletionStream)
    raw: bytes = b""
    """The body of an error response."""
    ended: float = 0.0
    broken: str = ""

    @property
    def failed(self) -> str:
        return self.broken or (self.stream.failed if self.status == 200 else f"status {self.status}")


def exchange(connection: StreamingConnection, body: bytes, headers: Mapping[str, str]) -> Exchange:
    """Sends a request and reads the response to its end. Failures are recorded in the result, not raised."""
    result = Exchange(time.perf_counter())
    try:
        reply = connection.post(PATH, body, headers)
        result.status = reply.status
        result.engine, result.pool = (reply.headers.get(f"x-manyeyes-{name}", "") for name in ("engine", "pool"))
        for result.ended, piece in connection.pieces(reply):
            if result.status == 200:
                result.stream.feed(result.ended, piece)
            else:
                result.raw += piece
    except ConnectionBroken as error:
        result.broken = "connection cut" if result.status else str(error)
    except TimeoutError:
        result.broken = f"no byte for {connection.timeout_s:g} s"
    except OSError as error:
        result.broken = error.strerror or type(error).__name__
    if result.broken:
        connection.close()
    if result.failed or not result.ended:
        result.ended = time.perf_counter()
    return result


@dataclass
class VirtualUser:
    """One simulated user. `number` identifies it within the run; `on_sample` is called with a sample of each request."""

    number: int
    settings: RequestSettings
    on_sample: Callable[[Sample], None]
    sleep: Callable[[float], None] = time.sleep
    connection: StreamingConnection = field(init=False)
    pauses: Random = field(init=False)
    _answer_text: str = ""

    def __post_init__(self) -> None:
        self.pauses = Random(f"pauses {self.number}")
        self.connection = StreamingConnection(self.settings.to, self.settings.timeout_s, self.settings.trusted)

    def converse(self, scenario: Scenario, conversation: UserConversation, due_s: float | None = None) -> bool:
        """Runs one conversation, with a pause after each turn. Stops at the first request that fails.

        `due_s`: when its first turn was due (seconds since 1970), in an open loop. Returns whether all turns were answered.
        """
        stays = due_s is None  # closed loop: the same user starts the next conversation
        for turn, messages in enumerate(self._turns(conversation)):
            sample = self._send_turn(scenario, turn, conversation.turns[turn], messages, due_s)
            self.on_sample(sample)
            due_s = None
            if sample.failed:
                if stays:
                    # Real users do not retry immediately, and a server that rejects requests must not be flooded.
                    self.sleep(self.settings.slowdown * max(AFTER_ERROR_S, scenario.think_s))
                return False
            if self.settings.pause * scenario.think_s and (stays or turn + 1 < len(conversation.turns)):
                self.sleep(
                    self.settings.slowdown * self.settings.pause * scenario.think_s * self.pauses.uniform(0.5, 1.5)
                )
        return True

    def _turns(self, conversation: UserConversation) -> Iterator[list[dict[str, Any]]]:
        messages: list[dict[str, Any]] = []
        for turn in conversation.turns:
            messages.append({"role": "user", "content": message_content(turn)})
            yield messages
            messages.append({"role": "assistant", "content": self._answer_text})

    def _send_turn(
        self, scenario: Scenario, number: int, turn: UserTurn, messages: list[dict[str, Any]], due_s: float | None
    ) -> Sample:
        body = orjson.dumps(completion_body(self.settings.model, messages, scenario.answer_tokens))
        began_s = time.time()
        late_s = max(0.0, began_s - due_s) if due_s is not None else 0.0
        name = f"lt-{uuid4().hex}"
        response = exchange(self.connection, body, {**self.settings.headers(), "X-Request-Id": name})
        answer = response.stream
        self._answer_text = "".join(answer.text)
        details = answer.usage.get("prompt_tokens_details") or {}
        return Sample(
            scenario=scenario.name,
            user=self.number,
            turn=number,
            began_s=began_s - late_s,
            late_s=late_s,
            first_s=answer.tokens_s[0] - response.began + late_s if answer.tokens_s else 0.0,
            total_s=response.ended - response.began + late_s,
            tokens=answer.tokens,
            prompt_tokens=int(answer.usage.get("prompt_tokens") or 0),
            cached_tokens=None if (cached := details.get("cached_tokens")) is None else int(cached),
            video=turn.video is not None,
            status=response.status,
            failed=response.failed,
            engine=response.engine,
            pool=response.pool,
            id=name,
        )


def message_content(
    turn: UserTurn, data_url: Callable[[SeededImage], str] = SeededImage.data_url
) -> str | list[dict[str, Any]]:
    """The `content` of a message, as the `openai` client sends it. `data_url` may return images encoded beforehand."""
    media: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": data_url(image)}} for image in turn.images
    ]
    if turn.video:
        media.append({"type": "video_url", "video_url": {"url": turn.video.data_url()}})
    return [*media, {"type": "text", "text": turn.text}] if media else turn.text


def completion_body(model: str, messages: list[dict[str, Any]], answer_tokens: int) -> dict[str, Any]:
    return {
        "messages": messages,
        "model": model,
        "max_tokens": answer_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "ignore_eos": True,
    }
