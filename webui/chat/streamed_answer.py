"""A streamed answer, and the summary line under it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from webui.files.attachments import PreparedAttachment
from webui.i18n import _
from webui.user_error import UserError, answer_cut_error

SERVED_BY_HEADERS = ("engine", "pool", "fallback", "route", "cache")


@dataclass(frozen=True)
class ServedBy:
    """Engine, pool and route of an answer, from the gateway's response headers. Missing values are empty."""

    engine: str = ""
    pool: str = ""
    fallback: str = ""
    request_id: str = ""
    route: str = ""
    cache: str = ""

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> Self:
        engine, pool, fallback, route, cache = (headers.get(f"x-manyeyes-{name}", "") for name in SERVED_BY_HEADERS)
        return cls(engine, pool, fallback, headers.get("x-request-id", ""), route, cache)


@dataclass(frozen=True)
class EngineSwitch:
    """Position in the text where another engine continued the answer, and the engine that failed."""

    position: int
    engine: str


@dataclass
class StreamedAnswer:
    """An answer, filled while it streams. Times are seconds of one monotonic clock."""

    started_s: float
    text: str = ""
    reasoning: str = ""
    first_token_s: float | None = None
    last_token_s: float | None = None
    served: ServedBy = field(default_factory=ServedBy)
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    attached: list[PreparedAttachment] = field(default_factory=list)
    """The files of the question, as sent."""
    vision_tokens_estimate: int = 0
    """Estimated before the request is sent."""
    reasoning_s: float | None = None
    """Duration of the reasoning, set when the answer begins."""
    chunks: int = 0
    """Tokens received from the current engine. Engines send one token per chunk."""
    earlier_tokens: int = 0
    """Tokens received from earlier engines."""
    switches: list[EngineSwitch] = field(default_factory=list)
    stopped: bool = False
    failure: UserError | None = None

    def add(self, text: str, at_s: float) -> None:
        """Appends text. The first token counts even if it has no text (a special token, half a character)."""
        self._record_token(at_s)
        self.text += text

    def think(self, text: str, at_s: float) -> None:
        """Appends reasoning that the engine sends separately from the answer."""
        self._record_token(at_s)
        self.reasoning += text

    def count(self, prompt_tokens: int, completion_tokens: int, cached: int | None) -> None:
        """Stores the engine's token counts. Only the first prompt count is used: later prompts include earlier text."""
        if self.prompt_tokens is None:
            self.prompt_tokens, self.cached_tokens = prompt_tokens, cached
        self.completion_tokens = self.earlier_tokens + completion_tokens

    def switch_engine(self) -> None:
        """Records that the engine failed. Text after this point is from another engine."""
        self.switches.append(EngineSwitch(len(self.text), self.served.engine or _("the engine")))
        self.earlier_tokens += self.chunks
        self.chunks = 0
        self.failure = self.finish_reason = None

    def end(self) -> None:
        """Called once when the stream has ended without being cancelled."""
        if self.failure is None and self.finish_reason in (None, "abort"):
            self.failure = answer_cut_error()

    def rendered(self) -> tuple[str, str]:
        """Returns (reasoning, answer), with a mark where the engine changed."""
        text = self.text
        for switch in reversed(self.switches):
            text = f"{text[: switch.position]}{switch_mark(switch.engine)}{text[switch.position :]}"
        return (self.reasoning.strip(), text) if self.reasoning else split_reasoning(text)

    @property
    def tokens_per_s(self) -> float | None:
        """Decoding speed: the number of tokens after the first, divided by their duration."""
        if self.completion_tokens is None or self.first_token_s is None or self.last_token_s is None:
            return None
        elapsed_s, tokens = self.last_token_s - self.first_token_s, self.completion_tokens - 1
        return tokens / elapsed_s if elapsed_s > 0 and tokens > 0 else None

    @property
    def first_token_ms(self) -> float | None:
        return None if self.first_token_s is None else (self.first_token_s - self.started_s) * 1000

    @property
    def total_s(self) -> float | None:
        return None if self.last_token_s is None else self.last_token_s - self.started_s

    def _record_token(self, at_s: float) -> None:
        if self.first_token_s is None:
            self.first_token_s = at_s
        self.last_token_s = at_s
        self.chunks += 1


SWITCH_MARK = re.compile(r" \*⟨[^⟩]*⟩\* ")


def switch_mark(engine: str) -> str:
    """Returns the mark that the answer shows where the engine changed."""
    text = _("another engine continues, {engine} failed", engine=engine)
    return f" *⟨{text}⟩* "


def strip_switch_marks(text: str) -> str:
    """Returns the answer without the marks."""
    return SWITCH_MARK.sub("", text)


def answer_summary(answer: StreamedAnswer) -> str:
    """Returns the summary line: cpu-0 · qwen3-vl-tiny · first token 140 ms · 61 tokens/s · 212 in / 96 out."""
    return " · ".join(_summary_parts(answer))


def answer_note(answer: StreamedAnswer, *file_notes: str) -> str:
    """Returns the Markdown under the answer: the failure in bold, the summary line, and the notes on its files.

    It is not HTML, because "copy message" and screen readers use the text unchanged.
    page.css recognizes a failure by its bold text.
    """
    parts = []
    if answer.failure is not None:
        parts.append(f"**{escape_markdown(answer.failure.summary)}** {escape_markdown(answer.failure.advice)}")
    if facts := answer_summary(answer):
        parts.append(escape_markdown(facts))
    if done := " · ".join(note for note in file_notes if note):
        parts.append(escape_markdown(done))
    return "\n\n".join(parts)


def escape_markdown(text: str) -> str:
    """Escapes the special characters of Markdown and HTML."""
    return re.sub(r"([\\`*_\[\]<>&$~|])", r"\\\1", text)


def answer_facts(answer: StreamedAnswer) -> dict[str, object]:
    """Returns the summary for programs. Unknown values are null."""
    served = answer.served
    return {
        "engine": served.engine or None,
        "pool": served.pool or None,
        "fallback_from": served.fallback or None,
        "route": served.route or None,
        "cache": served.cache or None,
        "request_id": served.request_id or None,
        "first_token_ms": _round(answer.first_token_ms),
        "total_s": _round(answer.total_s, 3),
        "tokens_per_s": _round(answer.tokens_per_s),
        "tokens_in": answer.prompt_tokens,
        "tokens_vision_estimate": answer.vision_tokens_estimate,
        "tokens_cached": answer.cached_tokens,
        "tokens_out": answer.completion_tokens,
        "finish_reason": answer.finish_reason,
        "continued_after": [switch.engine for switch in answer.switches],
        "error": str(answer.failure) if answer.failure else None,
    }


def _round(value: float | None, digits: int = 1) -> float | None:
    return None if value is None else round(value, digits)


def _summary_parts(answer: StreamedAnswer) -> list[str]:
    served = answer.served
    facts = [served.engine, served.pool]
    if served.fallback:
        facts.append(_("fallback from {pool}", pool=served.fallback))
    if served.route:
        facts.append(_("chosen by {route}", route=served.route))
    if served.cache == "HIT":
        facts.append(_("from the cache"))
    if answer.first_token_s is not None:
        facts.append(_("first token {time}", time=format_seconds(answer.first_token_s - answer.started_s)))
    if answer.tokens_per_s is not None:
        speed = answer.tokens_per_s
        facts.append(_("{speed} tokens/s", speed=f"{speed:.0f}" if speed >= 10 else f"{speed:.1f}"))
    if answer.prompt_tokens is not None and answer.completion_tokens is not None:
        facts.append(
            _(
                "{tokens} in{of_which} / {out} out",
                tokens=answer.prompt_tokens,
                of_which=_token_details(answer),
                out=answer.completion_tokens,
            )
        )
    if answer.finish_reason == "length":
        facts.append(_("truncated at max tokens"))
    if answer.switches:
        facts.append(
            _("continued after {engine} failed", engine=", ".join(switch.engine for switch in answer.switches))
        )
    if answer.stopped:
        facts.append(_("stopped"))
    if served.request_id and (answer.failure is not None or answer.first_token_s is not None):
        facts.append(_("request {id}", id=served.request_id))
    return [fact for fact in facts if fact]


def _token_details(answer: StreamedAnswer) -> str:
    parts = [_("≈ {tokens} vision", tokens=answer.vision_tokens_estimate)] if answer.vision_tokens_estimate else []
    parts += [_("{tokens} cached", tokens=answer.cached_tokens)] if answer.cached_tokens else []
    return f" ({', '.join(parts)})" if parts else ""


def format_seconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"


THINK_OPEN, THINK_CLOSE = "<think>", "</think>"


def split_reasoning(text: str) -> tuple[str, str]:
    """Returns (reasoning, answer). The answer is empty until the reasoning is closed."""
    begun = text.lstrip()
    if THINK_CLOSE in text:
        reasoning, _, answer = text.partition(THINK_CLOSE)
        return reasoning.lstrip().removeprefix(THINK_OPEN).strip(), answer.lstrip()
    if begun.startswith(THINK_OPEN):
        return begun.removeprefix(THINK_OPEN).strip(), ""
    if begun and THINK_OPEN.startswith(begun):  # the tag is not complete yet
        return "", ""
    return "", text
