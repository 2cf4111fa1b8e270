"""The line under an answer."""

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


def test_the_line_tells_engine_pool_first_token_speed_and_tokens() -> None:
    assert answer_summary(complete()) == "cpu-0 · qwen3-vl-tiny · first token 140 ms · 61 tokens/s · 212 in / 96 out"


def test_a_fallback_is_told() -> None:
    served = ServedBy(engine="gpu-3", pool="qwen3-vl-4b", fallback="qwen3-vl-8b")
    assert answer_summary(complete(served=served)).startswith("gpu-3 · qwen3-vl-4b · fallback from qwen3-vl-8b · ")


def test_why_auto_chose_the_pool_is_told() -> None:
    served = ServedBy(engine="gpu-3", pool="qwen3-vl-4b", route="rule 2: 1 picture(s)")
    assert answer_summary(complete(served=served)).startswith(
        "gpu-3 · qwen3-vl-4b · chosen by rule 2: 1 picture(s) · first token"
    )


def test_cached_tokens_are_told_when_the_engine_counts_them() -> None:
    assert "212 in (180 cached) / 96 out" in answer_summary(complete(cached_tokens=180))


def test_an_answer_cut_by_max_tokens_is_noted() -> None:
    assert answer_summary(complete(finish_reason="length")).endswith(" · cut at max tokens")


def test_a_stopped_answer_says_so_and_invents_no_numbers() -> None:
    answer = complete(stopped=True, prompt_tokens=None, completion_tokens=None, finish_reason=None)
    assert answer_summary(answer) == "cpu-0 · qwen3-vl-tiny · first token 140 ms · stopped"


def test_one_token_has_no_speed() -> None:
    assert "tokens/s" not in answer_summary(complete(completion_tokens=1, last_token_s=100.14))


def test_slow_numbers_keep_a_digit() -> None:
    text = answer_summary(complete(first_token_s=112.34, last_token_s=112.34 + 95 / 4.2))
    assert "first token 12.3 s" in text
    assert "4.2 tokens/s" in text


def test_an_aborted_answer_is_a_failure() -> None:
    answer = complete(finish_reason="abort")
    answer.end()
    assert answer.failure == answer_cut_error()
    assert answer_note(answer).startswith("**The answer was cut: the engine went away.** Press retry.\n\ncpu-0 · ")


def test_a_stream_without_finish_reason_is_a_failure() -> None:
    answer = complete(finish_reason=None)
    answer.end()
    assert answer.failure == answer_cut_error()


def test_a_complete_answer_is_no_failure() -> None:
    for reason in ("stop", "length"):
        answer = complete(finish_reason=reason)
        answer.end()
        assert answer.failure is None


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
