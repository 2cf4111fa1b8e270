"""An answer that an engine's death cuts goes on by itself on another engine."""

from collections.abc import Callable

import pytest

from webui.chat import completion_stream
from webui.chat.completion_stream import ChatRequest, continuation_request, request_body
from webui.chat.streamed_answer import ServedBy, StreamedAnswer, answer_note
from webui.user_error import UserError, answer_cut_error

QUESTION = ChatRequest("big", [{"role": "user", "content": "hi"}], "page", 0.7, 0.8, 100)
Part = Callable[[StreamedAnswer], None]


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion_stream, "RESUME_PAUSE_S", 0)


class Engines:
    """Gives one part after the other."""

    def __init__(self, *parts: Part) -> None:
        self.parts = list(parts)
        self.asked: list[ChatRequest] = []

    async def stream(self, question: ChatRequest, answer: StreamedAnswer) -> None:
        self.asked.append(question)
        self.parts.pop(0)(answer)
        answer.end()


CUT = answer_cut_error()


def gives(engine: str, words: str, whole: bool = False, failure: UserError | None = CUT) -> Part:
    def part(answer: StreamedAnswer) -> None:
        answer.served = ServedBy(engine=engine, pool="big")
        for word in words.split(" "):
            answer.add(word, 1.0)
        if whole:
            answer.finish_reason = "stop"
            answer.count(10, len(words.split(" ")), None)
        else:
            answer.failure = failure

    return part


def fails(failure: UserError) -> Part:
    def part(answer: StreamedAnswer) -> None:
        answer.failure = failure

    return part


async def test_the_rest_is_asked_for_with_what_has_come() -> None:
    engines, answer = Engines(gives("gpu-0", "one two"), gives("gpu-1", "three", whole=True)), StreamedAnswer(0.0)
    await completion_stream.stream_with_resume(engines, QUESTION, answer)
    assert answer.text == "onetwothree"
    assert answer.failure is None
    sent = request_body(engines.asked[1])
    assert sent["messages"] == [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "onetwo"}]
    assert (sent["continue_final_message"], sent["add_generation_prompt"]) == (True, False)
    assert sent["max_tokens"] == 98
    assert answer.rendered()[1] == "onetwo *⟨another engine continues, gpu-0 failed⟩* three"
    assert "continued after gpu-0 failed" in answer_note(answer)
    assert answer.completion_tokens == 3


async def test_a_second_death_is_survived_and_a_third_one_is_told() -> None:
    engines = Engines(gives("a", "x"), gives("b", "y"), gives("c", "z"))
    answer = StreamedAnswer(0.0)
    await completion_stream.stream_with_resume(engines, QUESTION, answer)
    assert (answer.text, answer.failure) == ("xyz", answer_cut_error())
    assert engines.asked[2].messages[-1] == {"role": "assistant", "content": "xy"}


async def test_no_engine_left_says_that_the_answer_was_cut() -> None:
    busy = UserError("All engines are busy.")
    engines, answer = Engines(gives("a", "x"), fails(busy), fails(busy)), StreamedAnswer(0.0)
    await completion_stream.stream_with_resume(engines, QUESTION, answer)
    assert (answer.text, answer.failure, answer.switches) == ("x", answer_cut_error(), [])


async def test_a_refusal_is_not_asked_again() -> None:
    refusal = UserError("The prompt is too long.")
    engines, answer = Engines(fails(refusal)), StreamedAnswer(0.0)
    await completion_stream.stream_with_resume(engines, QUESTION, answer)
    assert answer.failure is refusal


async def test_a_cut_before_anything_came_is_the_gateways_to_repeat() -> None:
    engines, answer = Engines(fails(answer_cut_error())), StreamedAnswer(0.0)
    await completion_stream.stream_with_resume(engines, QUESTION, answer)
    assert len(engines.asked) == 1


async def test_cut_thinking_is_thought_again() -> None:
    def thinks(answer: StreamedAnswer) -> None:
        answer.think("hm", 1.0)
        answer.failure = answer_cut_error()

    engines, answer = Engines(thinks, gives("b", "yes", whole=True)), StreamedAnswer(0.0)
    await completion_stream.stream_with_resume(engines, QUESTION, answer)
    assert (answer.text, answer.reasoning) == ("yes", "")
    assert engines.asked[1] == QUESTION


def test_nothing_follows_an_answer_of_all_its_tokens() -> None:
    assert continuation_request(QUESTION, "x", 100) is None
