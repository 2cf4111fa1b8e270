"""The line under an answer."""

import pytest

from webui.chat.streamed_answer import ServedBy, StreamedAnswer, answer_note, answer_summary
from webui.user_error import UserError, answer_cut_error

SERVED = ServedBy(engine="cpu-0", pool="qwen3-vl-tiny")


def complete(**changed: object) -> StreamedAnswer:
    fields: dict[str, object] = {
        "started_s": 100.0,
        "text": "A cat.",
        "first_token_s": 100.14,
        "last_token_s": 100.14 + 95 / 61,
        "served": SERVED,
        "finish_reason": "stop",
        "prompt_tokens": 212,
        "completion_tokens": 96,
    }
    return StreamedAnswer(**{**fields, **changed})  # type: ignore[arg-type]  # a table of fields, checked at run time


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({}, "cpu-0 · qwen3-vl-tiny · first token 140 ms · 61 tokens/s · 212 in / 96 out"),
        (
            {"served": ServedBy("gpu-3", "qwen3-vl-4b", fallback="qwen3-vl-8b", route="rule 2: 1 image(s)")},
            "gpu-3 · qwen3-vl-4b · fallback from qwen3-vl-8b · chosen by rule 2: 1 image(s) · "
            "first token 140 ms · 61 tokens/s · 212 in / 96 out",
        ),
        ({"cached_tokens": 180}, "… · 212 in (180 cached) / 96 out"),
        ({"finish_reason": "length"}, "… · 212 in / 96 out · truncated at max tokens"),
        (
            {"stopped": True, "prompt_tokens": None, "completion_tokens": None, "finish_reason": None},
            "cpu-0 · qwen3-vl-tiny · first token 140 ms · stopped",
        ),
        (
            {"completion_tokens": 1, "last_token_s": 100.14},
            "cpu-0 · qwen3-vl-tiny · first token 140 ms · 212 in / 1 out",
        ),
        (
            {"first_token_s": 112.34, "last_token_s": 112.34 + 95 / 4.2},
            "cpu-0 · qwen3-vl-tiny · first token 12.3 s · 4.2 tokens/s · 212 in / 96 out",
        ),
    ],
    ids=["all", "fallback and route", "cached", "cut", "stopped", "one token has no speed", "slow"],
)
def test_the_line_tells_who_answered_how_fast_and_with_how_many_tokens(changed: dict[str, object], line: str) -> None:
    shown = answer_summary(complete(**changed))
    assert shown == line or (line.startswith("…") and shown.endswith(line.removeprefix("…")))


@pytest.mark.parametrize("reason", ["stop", "length", "abort", None])
def test_an_answer_that_did_not_end_by_itself_is_a_failure(reason: str | None) -> None:
    answer = complete(finish_reason=reason)
    answer.end()
    if reason in ("stop", "length"):
        assert answer.failure is None
    else:
        assert answer.failure == answer_cut_error()
        assert answer_note(answer).startswith(
            "**The answer was cut off: the connection to the engine was lost.** Press retry.\n\ncpu-0 · "
        )


def test_a_failure_tells_the_request_so_that_its_log_line_can_be_found() -> None:
    answer = StreamedAnswer(
        started_s=0, served=ServedBy(pool="p", request_id="abc123"), failure=UserError("No engine is up.")
    )
    assert answer_note(answer) == "**No engine is up.** Press retry.\n\np · request abc123"


def test_what_the_gateway_says_is_shown_as_it_is_and_not_read_as_markdown() -> None:
    answer = StreamedAnswer(started_s=0, failure=UserError("<img src=x> *bold* [a](b)"))
    assert answer_note(answer) == r"**\<img src=x\> \*bold\* \[a\](b)** Press retry."


def test_headers_say_who_served() -> None:
    headers = {"x-manyeyes-engine": "gpu-1", "x-manyeyes-pool": "p", "x-request-id": "r", "x-manyeyes-route": "rule 1"}
    assert ServedBy.from_headers(headers) == ServedBy("gpu-1", "p", "", "r", "rule 1")
