"""One answer while it comes, and the line under it."""

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
    """Who answered, from the gateway's response headers; empty where the gateway did not say."""

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
    """Where another engine went on with the answer: after so many characters of its text, from the one that went away."""

    position: int
    engine: str


@dataclass
class StreamedAnswer:
    """Filled by whoever asks; times are seconds of one monotonic clock."""

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
    """The question's files as they were sent."""
    vision_tokens_estimate: int = 0
    """An estimate made before it was sent."""
    reasoning_s: float | None = None
    """How long the thinking took, once the answer began."""
    chunks: int = 0
    """Tokens seen so far in the part that comes; engines send one a chunk."""
    earlier_tokens: int = 0
    """Tokens of the parts that other engines gave before."""
    switches: list[EngineSwitch] = field(default_factory=list)
    stopped: bool = False
    failure: UserError | None = None

    def add(self, text: str, at_s: float) -> None:
        """The first token counts when it comes, even if it shows no text (a special token, half a character)."""
        self._came(at_s)
        self.text += text

    def think(self, text: str, at_s: float) -> None:
        """Thinking that the engine tells apart from the answer."""
        self._came(at_s)
        self.reasoning += text

    def count(self, prompt_tokens: int, completion_tokens: int, cached: int | None) -> None:
        """What the engine counted at the end. The prompt of a continued answer holds the part before, so the first counts."""
        if self.prompt_tokens is None:
            self.prompt_tokens, self.cached_tokens = prompt_tokens, cached
        self.completion_tokens = self.earlier_tokens + completion_tokens

    def switch_engine(self) -> None:
        """The engine went away; what comes from here on is another one's."""
        self.switches.append(EngineSwitch(len(self.text), self.served.engine or _("the engine")))
        self.earlier_tokens += self.chunks
        self.chunks = 0
        self.failure = self.finish_reason = None

    def end(self) -> None:
        """Called once when the stream has ended by itself."""
        if self.failure is None and self.finish_reason in (None, "abort"):
            self.failure = answer_cut_error()

    def rendered(self) -> tuple[str, str]:
        """(thinking, answer), with a mark where the engine changed."""
        text = self.text
        for switch in reversed(self.switches):
            text = f"{text[: switch.position]}{switch_mark(switch.engine)}{text[switch.position :]}"
        return (self.reasoning.strip(), text) if self.reasoning else split_reasoning(text)

    @property
    def tokens_per_s(self) -> float | None:
        """Decoding speed: the tokens after the first over the time they took."""
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

    def _came(self, at_s: float) -> None:
        if self.first_token_s is None:
            self.first_token_s = at_s
        self.last_token_s = at_s
        self.chunks += 1


SWITCH_MARK = re.compile(r" \*⟨[^⟩]*⟩\* ")


def switch_mark(engine: str) -> str:
    """Stands in the shown answer where the engine changed."""
    words = _("another engine goes on, {gone} went away", gone=engine)
    return f" *⟨{words}⟩* "


def strip_switch_marks(text: str) -> str:
    """The answer as the engines gave it."""
    return SWITCH_MARK.sub("", text)


def answer_summary(answer: StreamedAnswer) -> str:
    """For example: cpu-0 · qwen3-vl-tiny · first token 140 ms · 61 tokens/s · 212 in / 96 out."""
    return " · ".join(_summary_parts(answer))


def answer_note(answer: StreamedAnswer, *file_notes: str) -> str:
    """Markdown under the answer: the failure in bold if there is one, then the line, then what was done to its files.

    Markdown and not HTML, because "copy message" and screen readers take it as it stands;
    page.css tells a failure by its bold words.
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
    """`text` with what Markdown and HTML would read as their own put out of action."""
    return re.sub(r"([\\`*_\[\]<>&$~|])", r"\\\1", text)


def answer_facts(answer: StreamedAnswer) -> dict[str, object]:
    """The same for programs: what is not known is null."""
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
        facts.append(_("cut at max tokens"))
    if answer.switches:
        facts.append(_("went on after {gone} went away", gone=", ".join(switch.engine for switch in answer.switches)))
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
    """(thinking, answer); the answer is empty while the thinking is not closed."""
    begun = text.lstrip()
    if THINK_CLOSE in text:
        reasoning, _, answer = text.partition(THINK_CLOSE)
        return reasoning.lstrip().removeprefix(THINK_OPEN).strip(), answer.lstrip()
    if begun.startswith(THINK_OPEN):
        return begun.removeprefix(THINK_OPEN).strip(), ""
    if begun and THINK_OPEN.startswith(begun):  # the tag is still on its way
        return "", ""
    return "", text
