"""One answer while it comes, and the line under it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from webui.failure import CUT, Failure


@dataclass(frozen=True)
class Served:
    """Who answered, from the gateway's response headers; empty where the gateway did not say."""

    engine: str = ""
    pool: str = ""
    fallback: str = ""
    request_id: str = ""
    route: str = ""

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> Served:
        return cls(
            engine=headers.get("x-manyeyes-engine", ""),
            pool=headers.get("x-manyeyes-pool", ""),
            fallback=headers.get("x-manyeyes-fallback", ""),
            request_id=headers.get("x-request-id", ""),
            route=headers.get("x-manyeyes-route", ""),
        )


@dataclass
class Answer:
    """Filled by the gateway's client; times are seconds of one monotonic clock."""

    asked_s: float
    text: str = ""
    first_s: float | None = None
    last_s: float | None = None
    served: Served = field(default_factory=Served)
    finish_reason: str | None = None
    tokens_in: int | None = None
    tokens_cached: int | None = None
    tokens_out: int | None = None
    stopped: bool = False
    failure: Failure | None = None

    def add(self, text: str, at_s: float) -> None:
        """The first token counts when it comes, even if it shows no text (a special token, half a character)."""
        if self.first_s is None:
            self.first_s = at_s
        self.last_s = at_s
        self.text += text

    def end(self) -> None:
        """Called once when the stream has ended by itself."""
        if self.failure is None and self.finish_reason in (None, "abort"):
            self.failure = CUT

    @property
    def tokens_per_s(self) -> float | None:
        """Decoding speed: the tokens after the first over the time they took."""
        if not self.tokens_out or self.tokens_out < 2 or self.first_s is None or self.last_s is None:
            return None
        took_s = self.last_s - self.first_s
        return (self.tokens_out - 1) / took_s if took_s > 0 else None


def line(answer: Answer) -> str:
    """For example: cpu-0 · qwen3-vl-tiny · first token 140 ms · 61 tokens/s · 212 in / 96 out."""
    return " · ".join(_facts(answer))


def note(answer: Answer) -> str:
    """Markdown under the answer: the failure in bold if there is one, then the line.

    Markdown and not HTML, because "copy message" and screen readers take it as it stands;
    page.css tells a failure by its bold words.
    """
    parts = []
    if answer.failure is not None:
        parts.append(f"**{_plain(answer.failure.what)}** {_plain(answer.failure.next)}")
    if facts := line(answer):
        parts.append(_plain(facts))
    return "\n\n".join(parts)


def _plain(text: str) -> str:
    """`text` with what Markdown and HTML would read as their own put out of action."""
    return re.sub(r"([\\`*_\[\]<>&$~|])", r"\\\1", text)


def _facts(answer: Answer) -> list[str]:
    served = answer.served
    facts = [served.engine, served.pool]
    if served.fallback:
        facts.append(f"fallback from {served.fallback}")
    if served.route:
        facts.append(f"chosen by {served.route}")
    if answer.first_s is not None:
        facts.append(f"first token {_ms(answer.first_s - answer.asked_s)}")
    if answer.tokens_per_s is not None:
        speed = answer.tokens_per_s
        facts.append(f"{speed:.0f} tokens/s" if speed >= 10 else f"{speed:.1f} tokens/s")
    if answer.tokens_in is not None and answer.tokens_out is not None:
        cached = f" ({answer.tokens_cached} cached)" if answer.tokens_cached else ""
        facts.append(f"{answer.tokens_in} in{cached} / {answer.tokens_out} out")
    if answer.finish_reason == "length":
        facts.append("cut at max tokens")
    if answer.stopped:
        facts.append("stopped")
    if answer.failure is not None and served.request_id:
        facts.append(f"request {served.request_id}")
    return [fact for fact in facts if fact]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"
