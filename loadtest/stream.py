"""A streamed chat answer, event by event: when tokens came, how it ended, and why it does not count if it does not."""

from dataclasses import dataclass, field
from typing import Any

import orjson

_DONE = b"[DONE]"
GOOD_ENDS = ("stop", "length")


@dataclass
class Streamed:
    """`tokens_s`: when each event with text arrived. vLLM may put several tokens into one event; `usage` has their number."""

    text: list[str] = field(default_factory=list)
    tokens_s: list[float] = field(default_factory=list)
    finish_reason: str = ""
    error: str = ""
    done: bool = False
    usage: dict[str, Any] = field(default_factory=dict)
    _left: bytes = b""

    def feed(self, at_s: float, piece: bytes) -> None:
        """Events end with an empty line; what is after the last one waits for the next piece."""
        *events, self._left = (self._left + piece).split(b"\n\n")
        for event in events:
            data = event.strip().removeprefix(b"data:").strip()
            if data == _DONE:
                self.done = True
            elif data and not data.startswith(b":"):
                self._event(at_s, data)

    def _event(self, at_s: float, data: bytes) -> None:
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
            if said := (choice.get("delta") or {}).get("content"):
                self.text.append(said)
                self.tokens_s.append(at_s)

    @property
    def tokens(self) -> int:
        return int(self.usage.get("completion_tokens") or len(self.tokens_s))

    @property
    def failed(self) -> str:
        """Empty when the answer counts: its end came, a token came, and it was not broken off."""
        if self.error:
            return self.error
        if self.finish_reason and self.finish_reason not in GOOD_ENDS:
            return f"finish_reason {self.finish_reason}"
        if not self.done:
            return "cut before [DONE]"
        if not self.tokens_s:
            return "no token"
        return "" if self.finish_reason else "no finish_reason"
