"""What the page says when the gateway refuses or is not there."""

import json

import httpx2
import openai
import pytest

from webui.chat.completion_stream import ChatRequest
from webui.chat.streamed_answer import StreamedAnswer
from webui.cluster.gateway_client import GatewayClient
from webui.settings import WebuiSettings
from webui.user_error import UserError, answer_cut_error, explain_error

URL = "http://gateway:8080"
REQUEST = httpx2.Request("POST", f"{URL}/v1/chat/completions")


def refused(status: int, message: str, headers: dict[str, str] | None = None) -> UserError:
    body = json.dumps({"error": {"message": message, "type": "t", "param": None, "code": status}})
    response = httpx2.Response(status, headers=headers, text=body, request=REQUEST)
    client = openai.AsyncOpenAI(api_key="k", base_url=URL)
    return explain_error(client._make_status_error_from_response(response), URL)


@pytest.mark.parametrize(
    ("status", "next_step"),
    [
        (400, "Change the message or the settings"),
        (401, "MANYEYES_API_KEY"),
        (404, "Choose another model"),
        (413, "Remove a picture or a video"),
        (429, "Press retry in a moment."),
        (503, "The engines may be starting."),
    ],
)
def test_a_refusal_shows_the_gateway_s_words_and_a_next_step(status: int, next_step: str) -> None:
    failure = refused(status, "The gateway's own words")
    assert failure.summary == "The gateway's own words."
    assert next_step in failure.advice


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_told_in_seconds(status: int) -> None:
    assert "Press retry in 7 s." in refused(status, "busy", {"Retry-After": "7"}).advice


def test_an_answer_that_is_no_error_object_is_explained_too() -> None:
    response = httpx2.Response(502, text="<html>Bad Gateway</html>", request=REQUEST)
    client = openai.AsyncOpenAI(api_key="k", base_url=URL)
    failure = explain_error(client._make_status_error_from_response(response), URL)
    assert failure.summary == "The gateway refused the request with status 502."


def test_a_gateway_out_of_reach_is_named() -> None:
    failure = explain_error(openai.APIConnectionError(request=REQUEST), URL)
    assert failure.summary == f"The gateway at {URL} cannot be reached."


def test_a_connection_that_breaks_while_the_answer_comes_is_a_cut_answer() -> None:
    assert explain_error(httpx2.ReadError("peer closed"), URL) == answer_cut_error()


async def test_asking_a_gateway_that_is_not_there_fails_in_words() -> None:
    gateway = GatewayClient(WebuiSettings(gateway_url="http://127.0.0.1:9"))  # the discard port: nothing listens
    answer = StreamedAnswer(started_s=0)
    await gateway.ask(ChatRequest("m", [{"role": "user", "content": "hi"}], "page", 0.0, 1.0, 16), answer)
    assert answer.failure is not None
    assert answer.failure.summary == "The gateway at http://127.0.0.1:9 cannot be reached."
    assert await gateway.pools() is None
    assert await gateway.models() == []


def test_a_connection_that_breaks_in_the_middle_of_an_answer_is_a_cut() -> None:
    broken = openai.APIConnectionError(request=REQUEST)
    assert explain_error(broken, "http://gateway", begun=True).interrupted
    assert "cannot be reached" in explain_error(broken, "http://gateway").summary
