"""The emulated engine as a process of its own, used as a client uses it."""

import base64
import io
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from PIL import Image

from manyeyes.devcluster.eventually import eventually

ROOT = Path(__file__).resolve().parents[2]
QUICK = ("--start-seconds", "0", "--ttft-ms", "20", "--image-ms", "5", "--tpot-ms", "2")


class Emulator:
    """One running engine."""

    def __init__(self, process: subprocess.Popen[str], port: int, log: Path) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.log = log

    def metrics(self) -> dict[str, float]:
        """Samples by name and labels."""
        lines = httpx.get(f"{self.url}/metrics").raise_for_status().text.splitlines()
        return {name: float(value) for name, _, value in (x.rpartition(" ") for x in lines if not x.startswith("#"))}

    def metric(self, name: str, **labels: str) -> float:
        everything = {"model_name": "qwen3-vl-4b", "engine": "0"} | labels
        inside = ",".join(f'{key}="{everything[key]}"' for key in sorted(everything))
        return self.metrics()[f"vllm:{name}{{{inside}}}"]

    def post(self, body: dict[str, Any], path: str = "/v1/chat/completions") -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=30)


@contextmanager
def emulator(folder: Path, *more: str, wait: bool = True, constant: bool = True) -> Iterator[Emulator]:
    """Start an engine on a free port and kill it at the end; its log is printed when the test fails.

    Its times are constant, or else a profile's.
    """
    log = folder / "emulator.log"
    command = [sys.executable, "-m", "manyeyes.emulator", "--host=127.0.0.1", "--port=0", *(QUICK if constant else ())]
    command += ["--served-model-name", "qwen3-vl-4b", "alias", *more]
    with (
        log.open("w") as output,
        subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, text=True) as process,
    ):
        try:
            if wait:
                first = eventually(lambda: log.read_text().splitlines(), 10, 0.02, "the engine's first log line")[0]
                yield Emulator(process, json.loads(first)["port"], log)
            else:
                yield Emulator(process, 0, log)
        finally:
            process.kill()
            print(log.read_text())


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    limits = ("--limit-mm-per-prompt", '{"image":4,"video":1}')
    with emulator(tmp_path_factory.mktemp("engine"), *limits) as running:
        yield running


@pytest.fixture
def client(engine: Emulator) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{engine.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def picture(width: int = 640, height: int = 480) -> dict[str, Any]:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "navy").save(file, "PNG")
    return {
        "type": "image_url",
        "image_url": {"url": "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()},
    }


def about(*parts: dict[str, Any], text: str = "What is this?") -> list[Any]:
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def slow(tokens: int = 2000, **more: object) -> dict[str, Any]:
    """A request that takes 2 ms a token: long enough to be met while it runs."""
    return {"model": "qwen3-vl-4b", "messages": about(), "max_tokens": tokens, "ignore_eos": True} | more


def test_a_question_about_a_picture_is_answered_and_says_that_it_is_emulated(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="qwen3-vl-4b", messages=about(picture(), picture(31, 7)))
    said = answer.choices[0].message.content
    assert said is not None
    assert said.startswith("This answer is emulated: no model has seen your images.")
    assert "640 x 480, 31 x 7 pixels" in said
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == len(said.split())
    # 20 x 15 squares, and the smallest an image counts for, with two marks each
    assert answer.usage.prompt_tokens > 300 + 2 + 64 + 2
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 0


def test_a_streamed_answer_is_the_same_as_a_whole_one_and_ends_with_usage(client: openai.OpenAI) -> None:
    messages = about(picture())
    whole = client.chat.completions.create(model="alias", messages=messages, max_tokens=12)
    chunks = list(
        client.chat.completions.create(
            model="alias", messages=messages, max_tokens=12, stream=True, stream_options={"include_usage": True}
        )
    )
    with_choice = [chunk for chunk in chunks if chunk.choices]
    assert with_choice[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in with_choice) == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in with_choice] == [None] * 12 + ["length"]
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.model_dump() == whole.usage.model_dump()
    assert {chunk.model for chunk in chunks} == {"alias"}


def test_a_stream_without_include_usage_has_no_usage(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="alias", messages=about(), max_tokens=2, stream=True))
    assert all(chunk.usage is None for chunk in chunks)


def test_a_video_is_counted_and_answered(client: openai.OpenAI) -> None:
    data = base64.b64encode(b"\0\0\0\x18ftypmp42" + bytes(64)).decode()
    video = {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{data}"}}
    answer = client.chat.completions.create(model="alias", messages=about(video))
    assert "You sent 1 video." in (answer.choices[0].message.content or "")


def test_a_plain_completion_is_answered_whole_and_streamed(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="alias", prompt="The cat", max_tokens=5)
    chunks = client.completions.create(model="alias", prompt="The cat", max_tokens=5, stream=True)
    assert whole.choices[0].finish_reason == "length"
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text


def test_models_are_listed_with_their_context_length(client: openai.OpenAI) -> None:
    assert [(m.id, m.model_dump()["max_model_len"]) for m in client.models.list()] == [
        ("qwen3-vl-4b", 8192),
        ("alias", 8192),
    ]


def test_the_request_id_of_the_gateway_becomes_the_answers_id(engine: Emulator) -> None:
    headers = {"X-Request-Id": "abc-123"}
    body = {"messages": about(), "max_tokens": 1}
    assert (
        httpx.post(f"{engine.url}/v1/chat/completions", json=body, headers=headers).json()["id"] == "chatcmpl-abc-123"
    )


def test_probes_are_answered(engine: Emulator) -> None:
    assert httpx.get(f"{engine.url}/health").status_code == 200
    assert httpx.post(f"{engine.url}/ping").status_code == 200
    assert httpx.get(f"{engine.url}/load").json() == {"server_load": 0}
    assert "emulated" in httpx.get(f"{engine.url}/version").json()["version"]
    assert httpx.get(f"{engine.url}/v1/nothing").status_code == 404


@pytest.mark.parametrize(
    ("content", "status", "kind"),
    [
        (json.dumps({"model": "other", "messages": about()}), 404, "NotFoundError"),
        (json.dumps({"messages": about(text="word " * 9000), "stream": True}), 400, "BadRequestError"),
        ("{}", 400, "Bad Request"),
        ('{"model":', 400, "Bad Request"),
    ],
    ids=["unknown model", "too long", "no messages", "no JSON"],
)
def test_a_bad_request_gets_an_error_object(engine: Emulator, content: str, status: int, kind: str) -> None:
    headers = {"Content-Type": "application/json"}
    answer = httpx.post(f"{engine.url}/v1/chat/completions", content=content, headers=headers)
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (answer.status_code, error["type"], error["code"]) == (status, kind, status)


def test_metrics_count_requests_and_tokens_under_vllms_names(engine: Emulator) -> None:
    before = engine.metrics()
    usage = engine.post({"messages": about(picture()), "max_tokens": 7}).json()["usage"]
    after = engine.metrics()

    def grown(name: str, labels: str = "") -> float:
        key = f'vllm:{name}{{engine="0",{labels}model_name="qwen3-vl-4b"}}'
        return after[key] - before[key]

    assert grown("prompt_tokens_total") == grown("prefix_cache_queries_total") == usage["prompt_tokens"]
    assert grown("generation_tokens_total") == 7
    assert grown("inter_token_latency_seconds_count") == 6
    assert grown("time_to_first_token_seconds_count") == grown("e2e_request_latency_seconds_count") == 1
    assert grown("request_success_total", 'finished_reason="length",') == 1
    assert grown("iteration_tokens_total_count") == 7
    assert grown("prefix_cache_hits_total") == grown("num_preemptions_total") == 0


def test_a_client_that_goes_away_frees_the_engine_at_once(engine: Emulator) -> None:
    with (
        httpx.Client(timeout=30) as client,
        client.stream("POST", f"{engine.url}/v1/chat/completions", json=slow(8000, stream=True)) as answer,
    ):
        lines = answer.iter_lines()  # kept, because dropping it closes the stream
        next(lines)
        assert engine.metric("num_requests_running") == 1
    eventually(lambda: engine.metric("num_requests_running") == 0, 5, what="the cut stream's end")

    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{engine.url}/v1/chat/completions", json=slow(8000), timeout=0.5)
    eventually(lambda: engine.metric("num_requests_running") == 0, 5, what="the end of the request nobody waits for")


def test_more_requests_than_seats_wait_their_turn(tmp_path: Path) -> None:
    with emulator(tmp_path, "--max-num-seqs", "2") as engine, httpx.Client(timeout=30) as client:
        with (
            client.stream("POST", f"{engine.url}/v1/chat/completions", json=slow(stream=True)) as first,
            client.stream("POST", f"{engine.url}/v1/chat/completions", json=slow(stream=True)),
            client.stream("POST", f"{engine.url}/v1/chat/completions", json=slow(5, stream=True)) as third,
        ):
            eventually(lambda: engine.metric("num_requests_waiting") == 1, 5, what="the third request waiting")
            assert engine.metric("num_requests_running") == 2
            eventually(lambda: 0 < engine.metric("kv_cache_usage_perc") < 1, 5, what="the KV cache in use")
            first.close()
            assert list(third.iter_lines())[-2] == "data: [DONE]"
        eventually(lambda: engine.metric("num_requests_running") == 0, 5, what="an idle engine")
        assert engine.metric("num_requests_waiting") == 0


def test_on_sigterm_running_requests_finish_new_ones_get_500_and_health_stays_200(tmp_path: Path) -> None:
    with emulator(tmp_path, "--shutdown-timeout", "20") as engine, httpx.Client(timeout=30) as client:
        with client.stream("POST", f"{engine.url}/v1/chat/completions", json=slow(1000, stream=True)) as answer:
            lines = answer.iter_lines()
            next(lines)
            engine.process.send_signal(signal.SIGTERM)
            eventually(lambda: '"draining"' in engine.log.read_text(), 5, what="the drain")
            assert httpx.get(f"{engine.url}/health").status_code == 200
            refused = engine.post({"messages": about()})
            assert refused.status_code == 500
            assert refused.json()["error"]["type"] == "InternalServerError"
            events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        assert events[-1]["choices"][0]["finish_reason"] == "length"
        assert engine.process.wait(10) == 0


def test_requests_that_outlast_the_shutdown_timeout_are_aborted_as_vllm_does(tmp_path: Path) -> None:
    with emulator(tmp_path, "--shutdown-timeout", "0.2") as engine, httpx.Client(timeout=30) as client:
        with client.stream("POST", f"{engine.url}/v1/chat/completions", json=slow(8000, stream=True)) as answer:
            lines = answer.iter_lines()
            next(lines)
            engine.process.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert json.loads(rest[-2][6:])["choices"][0]["finish_reason"] == "abort"
        assert rest[-1] == "data: [DONE]"
        assert engine.process.wait(10) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_engine_ends_at_once_with_exit_code_0(tmp_path: Path, number: signal.Signals) -> None:
    with emulator(tmp_path, "--shutdown-timeout", "60") as engine:
        engine.process.send_signal(number)
        assert engine.process.wait(10) == 0


def test_an_engine_that_still_starts_has_no_open_port_and_ends_on_sigterm(tmp_path: Path) -> None:
    with emulator(tmp_path, "--start-seconds", "60", wait=False) as engine:
        # The signal handler is the last thing set up before the wait: until then a SIGTERM kills the process.
        status = Path(f"/proc/{engine.process.pid}/status")
        eventually(lambda: catches(status, signal.SIGTERM), 10, what="the engine's signal handler")
        assert engine.log.read_text() == ""
        engine.process.send_signal(signal.SIGTERM)
        assert engine.process.wait(10) == 0


def catches(status: Path, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal, from its /proc status."""
    mask = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("SigCgt:"))
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_the_port_is_closed_until_the_start_is_over(tmp_path: Path) -> None:
    with socket_on_free_port() as port:
        pass
    with emulator(tmp_path, "--start-seconds", "1", "--port", str(port), wait=False) as engine:
        engine.url = f"http://127.0.0.1:{port}"
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{engine.url}/health")
        eventually(lambda: healthy(engine.url), 15, what="the health of a started engine")


@contextmanager
def socket_on_free_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.ConnectError:
        return False


def test_a_port_in_use_is_named_in_the_error(tmp_path: Path) -> None:
    with socket_on_free_port() as port, emulator(tmp_path, "--port", str(port), wait=False) as engine:
        assert engine.process.wait(10) == 1
        assert f"127.0.0.1:{port}: Address already in use" in engine.log.read_text()


def test_an_engine_takes_less_than_80_mb(engine: Emulator) -> None:
    status = Path(f"/proc/{engine.process.pid}/status").read_text()
    resident_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    assert resident_kb < 80_000
