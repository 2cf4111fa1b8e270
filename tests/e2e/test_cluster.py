"""The running cluster as its users see it: real vLLM behind the real gateway. MANYEYES_URL is its address."""

import json
import os
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from manyeyes.devcluster.eventually import eventually
from tests.e2e.media import about, data_url, one_bit_png, picture
from tests.e2e.video import clip

URL = os.environ.get("MANYEYES_URL", "")
PROMETHEUS = os.environ.get("MANYEYES_PROMETHEUS_URL", "")
PROJECT = os.environ.get("MANYEYES_TEST_PROJECT", "manyeyes-test")
MODEL = "qwen3-vl-tiny"

pytestmark = pytest.mark.skipif(not URL, reason="MANYEYES_URL is not set: no running cluster")


@pytest.fixture
def client() -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{URL}/v1", api_key="any", max_retries=0, timeout=120) as made:
        yield made


def engines_up() -> set[str]:
    pools = httpx.get(f"{URL}/healthz", timeout=5).json()["pools"]
    return {engine["name"] for pool in pools for engine in pool["engines"] if engine["state"] == "up"}


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout


def test_a_question_about_a_picture_is_answered_and_the_header_names_the_engine(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=about(picture()), max_tokens=16)
    answer = raw.parse()
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage
    assert answer.usage.prompt_tokens > 14 * 10  # 448 x 336 is 14 x 10.5 squares of 32 x 32
    assert raw.headers["X-ManyEyes-Engine"] in {"cpu-0", "cpu-1"}
    assert raw.headers["X-ManyEyes-Pool"] == MODEL


def test_a_streamed_answer_comes_in_many_chunks_and_ends_with_usage(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL,
        messages=about(picture()),
        max_tokens=40,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    chunks = list(stream)
    # Fewer than tokens: a chunk may hold several, and random weights emit tokens that decode to nothing.
    assert sum(bool(chunk.choices and chunk.choices[0].delta.content) for chunk in chunks) >= 5
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == 40


def test_several_pictures_and_two_turns(client: openai.OpenAI) -> None:
    first = about(picture(), picture(900, 200, seed=1), picture(64, 640, seed=2), text="Compare them.")
    answer = client.chat.completions.create(model=MODEL, messages=first, max_tokens=8)
    said = answer.choices[0].message.content or "nothing"
    again = [*first, {"role": "assistant", "content": said}, {"role": "user", "content": "And now?"}]
    second = client.chat.completions.create(model=MODEL, messages=again, max_tokens=8)
    assert second.usage
    assert answer.usage
    assert second.usage.prompt_tokens > answer.usage.prompt_tokens


def test_a_video_is_answered_and_costs_no_more_frames_than_configured(client: openai.OpenAI) -> None:
    part = {"type": "video_url", "video_url": {"url": data_url("video/mp4", clip(seconds=20))}}
    answer = client.chat.completions.create(model=MODEL, messages=about(part, text="What happens?"), max_tokens=8)
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage
    # 8 frames make 4 temporal patches of at most 256 tokens each, with their time stamps.
    assert 4 < answer.usage.prompt_tokens < 4 * 256 + 200


def test_both_engines_take_part() -> None:
    def both() -> bool:
        body = {"model": "default", "messages": about(text="Hi"), "max_tokens": 1}
        replies = [httpx.post(f"{URL}/v1/chat/completions", json=body, timeout=60) for _ in range(8)]
        return {reply.headers.get("X-ManyEyes-Engine") for reply in replies} == {"cpu-0", "cpu-1"}

    eventually(both, 30)


@pytest.mark.parametrize(
    "url",
    [data_url("image/png", b"this is no picture"), "http://169.254.169.254/latest/meta-data", "file:///etc/passwd"],
    ids=["no picture", "metadata", "file"],
)
def test_a_picture_that_is_none_or_may_not_be_fetched_is_refused(url: str) -> None:
    before = engines_up()
    body = {"model": MODEL, "messages": about({"type": "image_url", "image_url": {"url": url}}), "max_tokens": 1}
    reply = httpx.post(f"{URL}/v1/chat/completions", json=body, timeout=60)
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["message"]
    assert engines_up() == before


def test_more_pictures_than_allowed_are_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="At most 16 image"):
        client.chat.completions.create(model=MODEL, messages=about(*[picture(seed=n) for n in range(17)]), max_tokens=1)


def test_a_body_of_seventy_megabytes_is_413_in_openais_form(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model=MODEL, messages=about(text="x" * (70 * 1024**2)))
    assert caught.value.status_code == 413
    assert caught.value.code == "request_too_large"


def test_malformed_json_and_an_unknown_model_reach_no_engine() -> None:
    broken = httpx.post(f"{URL}/v1/chat/completions", content=b'{"model": "qwen3-vl-tiny", "messages": [')
    assert (broken.status_code, broken.json()["error"]["code"]) == (400, "invalid_json")
    unknown = httpx.post(f"{URL}/v1/chat/completions", json={"model": "gpt-9", "messages": []})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    assert "X-ManyEyes-Engine" not in broken.headers
    assert "X-ManyEyes-Engine" not in unknown.headers


def test_prometheus_scrapes_engines_gateway_and_controller() -> None:
    def all_up() -> bool:
        reply = httpx.get(f"{PROMETHEUS}/api/v1/query", params={"query": "up == 1"}, timeout=5).json()
        found = {sample["metric"].get("engine") or sample["metric"]["job"] for sample in reply["data"]["result"]}
        assert {"cpu-0", "cpu-1", "gateway", "controller"} <= found, found
        return True

    eventually(all_up, 30, 0.5)


def test_only_the_gateway_listens_beyond_the_loopback_address() -> None:
    published = docker(
        "ps", "--filter", f"label=com.docker.compose.project={PROJECT}", "--format", "{{.Names}} {{.Ports}}"
    )
    outside = [line for line in published.splitlines() if "->" in line and "127.0.0.1:" not in line]
    assert outside == []  # in this configuration the gateway is on the loopback address too


def test_an_engine_that_stops_and_returns_costs_no_request() -> None:
    seen: Counter[object] = Counter()
    stop = threading.Event()

    def user(number: int) -> None:
        body = {"model": MODEL, "messages": about(picture(seed=number)), "max_tokens": 8}
        with httpx.Client(timeout=120) as http:
            while not stop.is_set():
                try:
                    reply = http.post(f"{URL}/v1/chat/completions", json=body)
                    reason = reply.json()["choices"][0]["finish_reason"] if reply.status_code == 200 else ""
                    seen[(reply.status_code, reason, reply.headers.get("X-ManyEyes-Engine"))] += 1
                except httpx.HTTPError as error:
                    # Killed between the head of its answer and the rest: begun, so never asked anew, and the client sees it.
                    cut = "without sending complete message body" in str(error)
                    seen["cut" if cut else repr(error)] += 1

    def answers(engine: str) -> int:
        return sum(count for key, count in seen.items() if isinstance(key, tuple) and key[2] == engine)

    threads = [threading.Thread(target=user, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: answers("cpu-0") >= 5 and answers("cpu-1") >= 5, 60)
        docker("kill", f"{PROJECT}-cpu-0-1")
        eventually(lambda: engines_up() == {"cpu-1"}, 20)
        before = answers("cpu-1")
        eventually(lambda: answers("cpu-1") >= before + 10, 60)
        docker("start", f"{PROJECT}-cpu-0-1")
        eventually(lambda: engines_up() == {"cpu-0", "cpu-1"}, 600)
        before = answers("cpu-0")
        eventually(lambda: answers("cpu-0") >= before + 5, 60)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert seen.pop("cut", 0) <= 4, seen  # no more than were under way
    failed = {
        key: count for key, count in seen.items() if not isinstance(key, tuple) or key[0] != 200 or key[1] == "abort"
    }
    assert failed == {}, seen


WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Oslo", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
NAMED = {"type": "function", "function": {"name": "get_weather"}}


def restarts() -> list[str]:
    names = [f"{PROJECT}-cpu-{number}-1" for number in range(2)]
    return [docker("inspect", "-f", "{{.State.StartedAt}} {{.RestartCount}}", name) for name in names]


def plain_png(width: int, height: int) -> dict[str, object]:
    """Of one bit a pixel: some kilobytes, whatever its size."""
    return {"type": "image_url", "image_url": {"url": data_url("image/png", one_bit_png(width, height))}}


def test_a_picture_of_too_many_pixels_is_the_clients_mistake_and_ends_no_engine(client: openai.OpenAI) -> None:
    before = restarts()
    for size in ((14_000, 12_000), (20_000, 20_000)):  # below and above Pillow's own limit
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model=MODEL, messages=about(plain_png(*size)), max_tokens=1)
        assert "pixels" in str(caught.value)
    assert restarts() == before


def test_pictures_just_below_the_limit_end_no_engine(client: openai.OpenAI) -> None:
    before = restarts()
    pictures = [plain_png(7000, 7000 + number) for number in range(4)]
    answer = client.chat.completions.create(model=MODEL, messages=about(*pictures), max_tokens=1)
    assert answer.usage
    assert answer.usage.prompt_tokens > 4 * 1000
    assert restarts() == before


def test_five_pictures_in_one_chat_are_answered(client: openai.OpenAI) -> None:
    pictures = [picture(64, 64, seed=seed) for seed in range(5)]
    answer = client.chat.completions.create(model=MODEL, messages=about(*pictures), max_tokens=1)
    assert answer.usage


def test_more_answers_than_an_engine_gives_are_refused_and_not_called_busy(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="n is 64, the limit is 8"):
        client.chat.completions.create(model=MODEL, messages=about(text="Hi"), n=64)


@pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])
def test_tools_are_called(client: openai.OpenAI, choice: object) -> None:
    asking: dict[str, Any] = {
        "model": MODEL,
        "messages": about(text="Weather in Oslo?"),
        "tools": [WEATHER],
        "tool_choice": choice,
        # Random weights would add calls until max_tokens.
        "parallel_tool_calls": False,
        "max_tokens": 200,
    }
    answer = client.chat.completions.create(**asking)
    calls = answer.choices[0].message.tool_calls or []
    assert calls
    for call in calls:
        assert call.type == "function"
        assert call.function.name == "get_weather"
        json.loads(call.function.arguments)
    deltas = [
        chunk.choices[0].delta for chunk in client.chat.completions.create(**asking, stream=True) if chunk.choices
    ]
    parts = [part for delta in deltas for part in delta.tool_calls or [] if part.function]
    indices = {part.index for part in parts}
    assert indices
    for index in indices:
        own = [part.function for part in parts if part.index == index and part.function]
        assert [one.name for one in own if one.name] == ["get_weather"]
        json.loads("".join(one.arguments or "" for one in own))


def test_the_model_may_choose_whether_to_call_a_tool(client: openai.OpenAI) -> None:
    asked = about(text="Weather in Oslo?")
    answer = client.chat.completions.create(
        model=MODEL, messages=asked, tools=[WEATHER], tool_choice="auto", max_tokens=8
    )
    assert answer.choices[0].finish_reason in ("stop", "length", "tool_calls")
    without = client.chat.completions.create(model=MODEL, messages=asked, max_tokens=8)
    assert answer.usage
    assert without.usage
    assert answer.usage.prompt_tokens > without.usage.prompt_tokens + 50  # the model is told of the tool


BOUNDED = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["receipt", "letter"]},
        "paid": {"type": "boolean"},
        "pages": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["kind", "paid", "pages"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("seed", range(5))
def test_a_json_answer_is_whole(client: openai.OpenAI, seed: int) -> None:
    """All fields of the schema have a longest value, and there are no blanks between them: it ends within max_tokens."""
    answer = client.chat.completions.create(
        model=MODEL,
        messages=about(text="Read it."),
        max_tokens=100,
        temperature=seed / 4,
        seed=seed,
        response_format={"type": "json_schema", "json_schema": {"name": "read", "schema": BOUNDED, "strict": True}},
    )
    assert answer.choices[0].finish_reason == "stop"
    assert set(json.loads(answer.choices[0].message.content or "")) == {"kind", "paid", "pages"}


def terminals(depth: int) -> str:
    """A grammar for 2**depth times x."""
    rules = [f"A{n}: A{n + 1} A{n + 1}" for n in range(depth)]
    return "\n".join(["start: A0", *rules, f'A{depth}: "x"'])


BELOW_THE_LIMITS: dict[str, dict[str, Any]] = {
    "properties": {"json": {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(1900)}}},
    "enum": {"json": {"enum": [f"v{n}" for n in range(3900)]}},
    "patterns for one value": {"json": {"allOf": [{"type": "string", "pattern": f".*a{n}.*"} for n in range(9)]}},
    "repetitions": {"regex": "((a{0,26}){0,26}){0,26}"},
    "alternatives": {"regex": "|".join(f"w{n}" for n in range(700))},
    "levels": {"json": json.loads('{"type":"object","properties":{"a":' * 25 + '{"type":"string"}' + "}}" * 25)},
    "items": {"json": {"type": "array", "minItems": 1_000_000, "items": {"type": "string", "minLength": 1000}}},
    "grammar": {"grammar": terminals(16)},
    "ambiguous grammar": {"grammar": 'root ::= s\ns ::= s s | s s s | "a" | ""'},
    "choice": {"choice": [f"c{n}" for n in range(3900)]},
}


@pytest.mark.parametrize("name", BELOW_THE_LIMITS)
def test_schemas_just_below_the_limits_end_no_engine_and_hold_up_nobody(client: openai.OpenAI, name: str) -> None:
    before = restarts()
    asking = {
        "model": MODEL,
        "messages": about(text="Hi"),
        "max_tokens": 8,
        "structured_outputs": BELOW_THE_LIMITS[name],
    }
    answer = httpx.post(f"{URL}/v1/chat/completions", json=asking, timeout=60)
    # An engine refuses with its own limits, at the beginning or during the answer.
    refused = answer.json().get("error", {}).get("code")
    assert (answer.status_code, refused) in ((200, None), (400, 400), (422, "engine_cannot_process")), answer.text
    for _ in engines_up():
        client.chat.completions.create(model=MODEL, messages=about(text="Hi"), max_tokens=1, timeout=30)
    assert engines_up() == {"cpu-0", "cpu-1"}
    assert restarts() == before


def test_a_schema_above_the_limits_is_refused() -> None:
    schema = {"type": "string", "pattern": "^((a{1,300}){1,300}){1,300}$"}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    asking = {"model": MODEL, "messages": about(text="Hi"), "response_format": form}
    answer = httpx.post(f"{URL}/v1/chat/completions", json=asking, timeout=60)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "too_intricate", "response_format")
