"""Models side by side: who was fastest, what together saved, and votes that are kept."""

import csv
import io
import json
from typing import Any

import pytest

from webui.chat import comparison
from webui.chat.chat_requester import SamplingSettings
from webui.chat.comparison import Comparison, ModelRun
from webui.chat.completion_stream import Visitor
from webui.chat.streamed_answer import StreamedAnswer
from webui.cluster import endpoint_client
from webui.cluster.endpoint_client import UNREACHABLE_URL, FallbackAttempt
from webui.settings import EndpointAddress
from webui.user_error import UserError


def finished(*elapsed_s: float | None) -> Comparison:
    lanes = []
    for number, one in enumerate(elapsed_s):
        answer = StreamedAnswer(0.0, text="yes", finish_reason="stop")
        answer.first_token_s, answer.last_token_s = (0.1, one) if one else (None, None)
        answer.failure = None if one else UserError("Busy.")
        lanes.append(ModelRun("hi", [], SamplingSettings(f"m{number}"), answer))
    return Comparison(lanes, 5.0)


def test_the_fastest_is_marked_and_the_others_are_measured_against_it() -> None:
    assert finished(1.0, 2.5, None).verdicts() == ["fastest", "2.5 × slower", "failed"]
    assert finished(1.0, 1.02).verdicts() == ["equally fast"] * 2
    assert finished(1.0).verdicts() == [""]


def test_together_is_compared_with_one_after_the_other() -> None:
    found = finished(1.0, 3.0)
    assert found.speed_up == pytest.approx(4 / 3)
    assert "together took 3.0 s" in found.summary()
    assert finished(1.0, None).speed_up is None


def test_a_vote_stays_with_its_comparison_and_is_counted() -> None:
    kept: list[dict[str, Any]] = []
    for vote in ("m0", "m0", comparison.EQUALLY_GOOD):
        kept = comparison.add_vote(comparison.add_comparison(kept, finished(1.0, 2.0).facts("hi")), vote)
    assert comparison.tally_votes(kept) == "3 votes: m0 2, equally good 1"
    rows = list(csv.DictReader(io.StringIO(comparison.comparisons_csv(kept))))
    assert [(row["comparison"], row["model"], row["vote"]) for row in rows[:2]] == [
        ("1", "m0", comparison.EQUALLY_GOOD),
        ("1", "m1", comparison.EQUALLY_GOOD),
    ]
    assert len(json.loads(comparison.comparisons_json(kept))["comparisons"]) == 3


@pytest.mark.parametrize("kept", [None, "x", [1], [{"answers": 3}], [{"answers": [3]}]])
def test_what_a_browser_made_up_is_left_out(kept: object) -> None:
    assert comparison.valid_comparisons(kept) == []


PRIMARY = EndpointAddress("Primary", "http://a/v1", "big", "secret")
SECOND = EndpointAddress("Fallback", "http://b/v1", "small")
GATEWAY = EndpointAddress("Gateway", "http://gateway/v1", "auto")


def test_each_way_asks_those_it_names() -> None:
    assert endpoint_client.plan_attempts(endpoint_client.PRIMARY_AS_IT_IS, PRIMARY, SECOND, GATEWAY) == [
        PRIMARY,
        SECOND,
    ]
    wrong, then = endpoint_client.plan_attempts(endpoint_client.PRIMARY_WRONG_ADDRESS, PRIMARY, SECOND, GATEWAY)
    assert (wrong.base_url, wrong.key, then) == (UNREACHABLE_URL, "", SECOND)
    [gateway] = endpoint_client.plan_attempts(endpoint_client.THROUGH_GATEWAY, PRIMARY, SECOND, GATEWAY)
    assert (gateway.base_url, gateway.model) == ("http://gateway/v1", "big")


def test_the_table_of_attempts_escapes_what_an_endpoint_said() -> None:
    bad = FallbackAttempt(PRIMARY, StreamedAnswer(0.0, failure=UserError("<img src=x>", "Retry.")), 0.0, 1.0)
    assert "<img" not in endpoint_client.attempts_html([bad])
    assert endpoint_client.fallback_facts([bad])["answered_by"] is None


async def test_the_next_endpoint_is_asked_when_one_fails_and_not_when_it_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def ask(address: EndpointAddress, question: object, answer: StreamedAnswer, headers: object) -> None:
        if address is PRIMARY:
            answer.failure = UserError("Down.")
        else:
            answer.text = "yes"

    monkeypatch.setattr(endpoint_client, "stream_from_endpoint", ask)
    question = SamplingSettings("m").build_request([], Visitor())
    found = [list(made) async for made in endpoint_client.run_fallback([PRIMARY, SECOND, GATEWAY], question, {})]
    assert [one.address for one in found[-1]] == [PRIMARY, SECOND]
