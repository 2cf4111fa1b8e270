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


def refused(status: int, body: str, **headers: str) -> UserError:
    response = httpx2.Response(status, headers=headers, text=body, request=REQUEST)
    client = openai.AsyncOpenAI(api_key="k", base_url=URL)
    return explain_error(client._make_status_error_from_response(response), URL)


@pytest.mark.parametrize(
    ("status", "next_step"),
    [
        (400, "Change the message or the settings"),
        (401, "MANYEYES_API_KEY"),
        (404, "Choose another model"),
        (413, "Remove an image or a video"),
        (429, "Press retry in 7 s."),
        (503, "The engines may be starting. Press retry in 7 s."),
    ],
)
def test_a_refusal_shows_the_gateway_s_words_and_a_next_step(status: int, next_step: str) -> None:
    error = {"message": "The gateway's own words", "type": "t", "param": None, "code": status}
    failure = refused(status, json.dumps({"error": error}), **{"Retry-After": "7"})
    assert failure.summary == "The gateway's own words."
    assert next_step in failure.advice


def test_an_answer_that_is_no_error_object_is_explained_too() -> None:
    failure = refused(502, "<html>Bad Gateway</html>")
    assert failure.summary == "The gateway refused the request with status 502."
    assert "Press retry in a moment." in failure.advice


def test_a_connection_that_breaks_before_an_answer_came_or_in_the_middle_of_it_is_told_apart() -> None:
    broken = openai.APIConnectionError(request=REQUEST)
    assert explain_error(broken, URL).summary == f"The gateway at {URL} cannot be reached."
    for cut in (explain_error(broken, URL, begun=True), explain_error(httpx2.ReadError("peer closed"), URL)):
        assert cut == answer_cut_error()


async def test_asking_a_gateway_that_is_not_there_fails_in_words() -> None:
    gateway = GatewayClient(WebuiSettings(gateway_url="http://127.0.0.1:9"))  # the discard port: nothing listens
    answer = StreamedAnswer(started_s=0)
    await gateway.stream(ChatRequest("m", [{"role": "user", "content": "hi"}], "page", 0.0, 1.0, 16), answer)
    assert answer.failure is not None
    assert answer.failure.summary == "The gateway at http://127.0.0.1:9 cannot be reached."
    assert await gateway.pools() is None
    assert await gateway.models() == []
