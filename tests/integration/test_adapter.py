"""Endpoints that do not speak OpenAI's API: registered with a template, and asked through the gateway like any engine."""

import contextlib
import json
import signal
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openai import OpenAI

from manyeyes.devcluster.cluster import LocalCluster, local_cluster
from manyeyes.devcluster.eventually import eventually
from manyeyes.devcluster.ports import free_port
from tests.integration.custom_endpoint import TEMPLATE, Foreign, foreign
from tests.integration.documents import ADMIN_KEY
from tests.integration.registry_client import call, refusal, registered_engines
from tests.integration.scan.images import SMALL_URL

SECRET = "sk-of-the-foreign-endpoint"


def described(url: str, **more: Any) -> dict[str, Any]:
    return {
        "url": url,
        "template": TEMPLATE,
        "headers": {"Authorization": "Bearer {SECRET:foreign.key}", "X-Plan": "small"},
        "answer": "$.output.text",
        "stream": {"delta": "$.output.text"},
        "usage": {"prompt_tokens": "$.usage.in", "completion_tokens": "$.usage.out"},
        "finish_reason": "$.output.why",
    } | more


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalCluster, Foreign]]:
    folder = tmp_path_factory.mktemp("local_cluster")
    (folder / "secrets").mkdir()
    (folder / "secrets/admin.key").write_text(ADMIN_KEY)
    (folder / "secrets/foreign.key").write_text(f"{SECRET}\n")
    adapter_ports = [free_port() for _ in range(6)]
    written = {
        "pools": [
            {"name": "captions", "model": "captioner-2", "media": {"images_per_prompt": 4, "videos_per_prompt": 0}},
            {"name": "words", "model": "wordy", "media": {"images_per_prompt": 0, "videos_per_prompt": 0}},
        ],
        # Without an engine of cluster.yaml a pool has no place in nginx's files yet.
        "engines": [{"name": "late-0", "pool": "captions"}, {"name": "late-1", "pool": "words"}],
        "adapter": {
            "first_port": adapter_ports[0],
            "ports": adapter_ports[-1] - adapter_ports[0] + 1,
            "silence_timeout_s": 3,
            "answer_timeout_s": 6,
            "max_answer_mb": 1,
        },
    }
    with foreign(free_port()) as endpoint, local_cluster(folder, written) as cluster:
        cluster.start_adapter()
        body = {"name": "captioner", "pool": "captions", "endpoint": described(endpoint.url)}
        eventually(lambda: _answers(cluster), 20)
        reply = call(cluster, "POST", "/engines", json=body)
        assert reply.status_code == 201, reply.text
        assert reply.json()["notice"] == ""
        cluster.answers_from("captions", {"captioner"})
        yield cluster, endpoint


def _answers(cluster: LocalCluster) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return call(cluster, "GET", "/engines", {}).is_success
    return False


@pytest.fixture
def behaved(running: tuple[LocalCluster, Foreign]) -> Iterator[tuple[LocalCluster, Foreign]]:
    """The endpoint as it is by itself, before and after."""
    _, endpoint = running
    usual = Foreign(0)
    fields = ("words", "pause_s", "status", "raw", "lines")
    yield running
    for name in fields:
        setattr(endpoint, name, getattr(usual, name))


def client(cluster: LocalCluster) -> OpenAI:
    return OpenAI(base_url=f"{cluster.url}/v1", api_key="any", max_retries=0, timeout=30)


def test_the_openai_client_gets_an_answer_with_usage_and_the_endpoint_what_its_template_says(behaved: Any) -> None:
    cluster, endpoint = behaved
    prompt = 'He said: "}], \\"model\\": 1" {MODEL_NAME}\n\u2028 ü'
    picture = SMALL_URL
    content = [{"type": "text", "text": prompt}, {"type": "image_url", "image_url": {"url": picture}}]
    messages: Any = [{"role": "user", "content": content}]
    answer = client(cluster).chat.completions.create(
        model="captions", messages=messages, temperature=0.25, max_tokens=7
    )
    assert answer.choices[0].message.content == "One two three."
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (11, 3, 14)
    assert answer.model == "captions"
    assert endpoint.asked[-1] == {
        "path": "/generate?v=2",
        "model": "captioner-2",
        "input": {"prompt": prompt, "images": [picture]},
        "parameters": {"temperature": 0.25, "limit": 7, "incremental": False},
    }
    assert endpoint.headers[-1]["Authorization"] == f"Bearer {SECRET}"
    assert endpoint.headers[-1]["X-Plan"] == "small"


def test_what_the_request_does_not_say_is_left_out(behaved: Any) -> None:
    cluster, endpoint = behaved
    assert cluster.ask("captions", max_tokens=None).status_code == 200
    assert endpoint.asked[-1]["input"] == {"prompt": "Hello"}
    assert endpoint.asked[-1]["parameters"] == {"incremental": False}


@pytest.mark.parametrize("lines", [False, True], ids=["events", "json-lines"])
def test_a_stream_comes_piece_by_piece_and_ends_with_usage_and_done(behaved: Any, lines: bool) -> None:
    cluster, endpoint = behaved
    endpoint.words, endpoint.pause_s, endpoint.lines = ["Eins ", "zwei ", "drei ü."], 0.2, lines
    sent_at_first = 0
    texts, reasons, usage = [], [], None
    stream = client(cluster).chat.completions.create(
        model="captions",
        messages=[{"role": "user", "content": "Count"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        for choice in chunk.choices:
            if choice.delta.content:
                sent_at_first = sent_at_first or endpoint.sent
                texts.append(choice.delta.content)
            reasons += [choice.finish_reason] if choice.finish_reason else []
        usage = chunk.usage or usage
    assert texts == ["Eins ", "zwei ", "drei ü."]
    assert reasons == ["stop"]
    assert usage
    assert usage.total_tokens == 14
    assert endpoint.asked[-1]["parameters"]["incremental"] is True
    raw = cluster.ask("captions", stream=True).text
    assert raw.rstrip().endswith("data: [DONE]")


def test_an_endpoint_that_does_not_stream_is_streamed_in_one_piece(behaved: Any) -> None:
    cluster, endpoint = behaved
    body = {"name": "plain", "pool": "captions", "endpoint": described(endpoint.url, stream=None)}
    assert call(cluster, "POST", "/engines", json=body).is_success
    cluster.answers_from("captions", {"captioner", "plain"})
    call(cluster, "POST", "/engines/captioner/drain")
    try:
        cluster.answers_from("captions", {"plain"})
        events = [line[6:] for line in cluster.ask("captions", stream=True).text.splitlines() if line]
        assert events[-1] == "[DONE]"
        deltas = [json.loads(event)["choices"][0]["delta"].get("content") for event in events[:-1]]
        assert [delta for delta in deltas if delta] == ["One two three."]
        assert endpoint.asked[-1]["parameters"] == {"incremental": False, "limit": 5}
    finally:
        call(cluster, "POST", "/engines/captioner/resume")
        call(cluster, "DELETE", "/engines/plain")
        cluster.answers_from("captions", {"captioner"})


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"status": 401}, (502, "endpoint_refuses_key")),
        ({"status": 422}, (400, "endpoint_refuses_request")),
        ({"status": 302}, (502, "endpoint_redirects")),
        ({"raw": b"<html>"}, (502, "endpoint_answer_unreadable")),
        ({"raw": b'{"output": {"text": {"deep": 1}}}'}, (502, "endpoint_answer_unreadable")),
        ({"raw": b'{"output": {}}'}, (502, "endpoint_answer_unreadable")),
        ({"raw": b'{"output": {"text": "' + b"x" * (2 << 20) + b'"}}'}, (502, "endpoint_answer_too_large")),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_what_goes_wrong_before_the_first_byte_is_an_error_in_openais_form(
    behaved: Any, fault: dict[str, Any], expected: tuple[int, str], stream: bool
) -> None:
    cluster, endpoint = behaved
    for name, value in fault.items():
        setattr(endpoint, name, value)
    port = registered_engines(cluster)["captioner"]["address"].rpartition(":")[2]
    body = {"model": "captions", "messages": [{"role": "user", "content": "x"}], "stream": stream}
    reply = cluster.client.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body)
    assert refusal(reply) == expected
    assert SECRET not in reply.text + cluster.log("adapter") + cluster.log("controller")
    assert len(reply.text) < 2000


def test_an_endpoint_that_is_silent_ends_in_time(behaved: Any) -> None:
    cluster, endpoint = behaved
    endpoint.words, endpoint.pause_s = ["slow", "slow"], 20
    raw = cluster.ask("captions", stream=True).text
    assert '"slow"' in raw
    assert "endpoint_timeout" in raw
    assert "[DONE]" not in raw


def test_one_that_goes_on_for_ever_is_ended_and_the_client_can_tell(behaved: Any) -> None:
    cluster, endpoint = behaved
    endpoint.words, endpoint.pause_s = ["again "] * 10_000, 0.1
    raw = cluster.ask("captions", stream=True).text
    assert "endpoint_timeout" in raw
    assert "[DONE]" not in raw
    assert endpoint.cut.wait(10)
    endpoint.cut.clear()


def test_a_client_that_leaves_ends_the_question_to_the_endpoint(behaved: Any) -> None:
    cluster, endpoint = behaved
    endpoint.words, endpoint.pause_s = ["again "] * 10_000, 0.05
    endpoint.cut = threading.Event()
    body = {"model": "captions", "messages": [{"role": "user", "content": "x"}], "stream": True}
    with cluster.client.stream("POST", f"{cluster.url}/v1/chat/completions", json=body) as reply:
        assert next(reply.iter_lines())
    assert endpoint.cut.wait(4)  # well before adapter.answer_timeout_s would end it
    port = registered_engines(cluster)["captioner"]["address"].rpartition(":")[2]
    load = f"http://127.0.0.1:{port}/load"
    eventually(lambda: cluster.client.get(load).json() == {"server_load": 0}, 10)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "king", "content": "x"}]}, "must have one of the roles"),
        ({"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}]}]}, "not 'video_url'"),
        ({"n": 2}, "n must be 1"),
        ({"temperature": "hot"}, "temperature must be a number"),
        ({"max_tokens": 0}, "max_tokens must be"),
        ({"tools": [{"type": "function"}]}, "does not support tools"),
    ],
)  # fmt: skip
def test_a_request_it_cannot_pass_on_is_refused_with_a_sentence(
    behaved: Any, change: dict[str, Any], words: str
) -> None:
    cluster, endpoint = behaved
    before = len(endpoint.asked)
    reply = cluster.ask("captions", **change)
    assert refusal(reply) == (400, "invalid_request")
    assert words in reply.json()["error"]["message"]
    assert len(endpoint.asked) == before


def test_a_template_without_a_place_for_pictures_serves_a_pool_without_them(behaved: Any) -> None:
    cluster, endpoint = behaved
    body = {"name": "wordy", "endpoint": described(endpoint.url, template={"input": "{USER_PROMPT}"}, stream=None)}
    reply = call(cluster, "POST", "/engines", json=body | {"pool": "captions"})
    assert refusal(reply) == (409, "breaks_rules")
    assert "images_per_prompt 0" in reply.json()["error"]["message"]
    assert call(cluster, "POST", "/engines", json=body | {"pool": "words"}).is_success
    cluster.answers_from("words", {"wordy"})
    assert endpoint.asked[-1]["input"] == "Hello"
    assert call(cluster, "DELETE", "/engines/wordy").is_success


@pytest.mark.parametrize(
    ("change", "expected", "words"),
    [
        ({"template": {"input": "no place"}}, (422, "invalid_request"), "{USER_PROMPT} in it"),
        ({"answer": "$.a["}, (422, "invalid_request"), "a JSONPath such as"),
        ({"headers": {"Host": "elsewhere"}}, (422, "invalid_request"), "which the HTTP client sets"),
        ({"headers": {"X-Two": "a\r\nX-Other: b"}}, (422, "invalid_request"), "headers"),
        ({"headers": {"X-Key": "{SECRET:missing.key}"}}, (422, "secret_file_unusable"), "does not exist"),
        ({"headers": {"X-Key": "{SECRET:admin.key}"}}, (403, "secret_not_allowed"), "never sent"),
        ({"url": "http://169.254.169.254/latest"}, (403, "address_not_allowed"), "metadata"),
        ({"url": "ftp://127.0.0.1/x"}, (422, "invalid_request"), "an address such as"),
    ],
)  # fmt: skip
def test_an_endpoint_that_cannot_be_is_refused_with_a_sentence(
    behaved: Any, change: dict[str, Any], expected: tuple[int, str], words: str
) -> None:
    cluster, endpoint = behaved
    body = {"name": "wrong", "pool": "captions", "endpoint": described(endpoint.url) | change}
    reply = call(cluster, "POST", "/engines", json=body)
    assert refusal(reply) == expected, reply.text
    assert words in reply.json()["error"]["message"]


def test_what_the_api_tells_of_an_endpoint_holds_no_header_values(behaved: Any) -> None:
    cluster, endpoint = behaved
    shown = call(cluster, "GET", "/engines/captioner", {}).json()
    assert shown["endpoint"]["headers"] == ["Authorization", "X-Plan"]
    assert shown["endpoint"]["url"] == endpoint.url
    assert "small" not in json.dumps(shown)


def test_another_key_in_the_secrets_folder_is_used_at_once(behaved: Any) -> None:
    cluster, endpoint = behaved
    file = cluster.folder / "secrets/foreign.key"
    try:
        file.write_text("sk-another")
        cluster.ask("captions")
        assert endpoint.headers[-1]["Authorization"] == "Bearer sk-another"
    finally:
        file.write_text(SECRET)


def test_a_killed_adapter_comes_back_with_its_endpoints_also_while_the_controller_is_away(behaved: Any) -> None:
    cluster, _ = behaved
    cluster.kill("controller")
    cluster.kill("adapter")
    cluster.start_adapter()
    eventually(lambda: cluster.ask("captions").status_code == 200, 20)
    cluster.start_controller()
    eventually(lambda: _answers(cluster), 20)
    cluster.answers_from("captions", {"captioner"})


def test_while_the_endpoint_does_not_listen_the_engine_is_out(behaved: Any) -> None:
    cluster, _ = behaved
    body = {"name": "absent", "pool": "captions", "endpoint": described(f"http://127.0.0.1:{free_port()}/")}
    assert call(cluster, "POST", "/engines", json=body).is_success
    eventually(lambda: registered_engines(cluster)["absent"]["state"] == "starting", 10)
    cluster.answers_from("captions", {"captioner"})
    assert call(cluster, "DELETE", "/engines/absent").is_success


def test_another_endpoint_at_the_same_port_is_asked_by_its_own_template(behaved: Any) -> None:
    cluster, endpoint = behaved
    templates = [{"input": "{USER_PROMPT}"}, {"question": "{USER_PROMPT}"}]
    ports = set()
    for number, template in enumerate(templates):
        described_so = described(endpoint.url, template=template, stream=None)
        body = {"name": f"wordy-{number}", "pool": "words", "endpoint": described_so}
        ports.add(call(cluster, "POST", "/engines", json=body).json()["address"])
        cluster.answers_from("words", {f"wordy-{number}"})
        assert {key for key in endpoint.asked[-1] if key != "path"} == set(template)
        assert call(cluster, "DELETE", f"/engines/wordy-{number}").is_success
    assert len(ports) == 1


def test_an_adapter_that_is_told_to_stop_finishes_the_answers_it_gives(behaved: Any) -> None:
    cluster, endpoint = behaved
    endpoint.words, endpoint.pause_s = ["still "] * 20, 0.1
    body = {"model": "captions", "messages": [{"role": "user", "content": "x"}], "stream": True}
    with cluster.client.stream("POST", f"{cluster.url}/v1/chat/completions", json=body) as reply:
        lines = reply.iter_lines()
        assert next(lines)
        cluster.kill("adapter", signal.SIGTERM)
        rest = "\n".join(lines)
    assert rest.count("still ") >= 18
    assert rest.rstrip().endswith("[DONE]")
    cluster.start_adapter()
    cluster.answers_from("captions", {"captioner"})
