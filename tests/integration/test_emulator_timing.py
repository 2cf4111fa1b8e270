"""An emulated engine with a GPU's times, much faster than life: what a client and Prometheus see of its caches."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from manyeyes.devcluster.eventually import eventually
from manyeyes.simulator import profile
from tests.integration.test_emulator import Emulator, about, emulator, picture

FAST = ("--start-seconds", "0", "--speed", "50")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Emulator]:
    with emulator(tmp_path, *FAST, constant=False) as running:
        yield running


def cached(answer: dict[str, Any]) -> int:
    return int(answer["usage"]["prompt_tokens_details"]["cached_tokens"])


def test_a_second_turn_finds_the_picture_the_question_and_the_answer(engine: Emulator) -> None:
    messages = about(picture())
    first = engine.post({"messages": messages}).json()
    said = first["choices"][0]["message"]["content"]
    more = [{"role": "assistant", "content": said}, {"role": "user", "content": "Are you sure?"}]
    second = engine.post({"messages": messages + more}).json()
    known = first["usage"]["total_tokens"] - 1  # the last token of an answer is never computed
    assert cached(first) == 0
    assert cached(second) == known // 16 * 16
    asked = first["usage"]["prompt_tokens"] + second["usage"]["prompt_tokens"]
    assert engine.metric("prefix_cache_queries_total") == engine.metric("prompt_tokens_total") == asked
    assert engine.metric("prefix_cache_hits_total") == engine.metric("prompt_tokens_cached_total") == cached(second)
    assert engine.metric("mm_cache_queries_total") == 2
    assert engine.metric("mm_cache_hits_total") == 1


def test_too_little_room_preempts_and_everything_is_still_answered(tmp_path: Path) -> None:
    small = ("--kv-cache-tokens", "640", "--max-model-len", "600", "--faults", "--fault", '{"kind":"hung"}')
    with emulator(tmp_path, *FAST, *small, constant=False) as engine, httpx.Client(timeout=30) as client:
        url = f"{engine.url}/v1/chat/completions"
        body = {"messages": about(), "max_tokens": 400, "ignore_eos": True, "stream": True}
        with client.stream("POST", url, json=body) as one, client.stream("POST", url, json=body) as other:
            # Both are in before either is computed: at this speed the first one can be over before the second one comes.
            eventually(lambda: engine.metric("num_requests_waiting") == 2, 10, 0.02, "both requests wait")
            client.delete(f"{engine.url}/emulator/faults").raise_for_status()
            for answer in (one, other):
                assert '"finish_reason":"length"' in [line for line in answer.iter_lines() if line][-2]
        assert engine.metric("num_preemptions_total") >= 1
        assert engine.metric("generation_tokens_total") == 800


def test_a_prompt_backlog_beyond_its_limit_gets_503(tmp_path: Path) -> None:
    limit = ("--max-num-queued-tokens", "50", "--fault", '{"kind":"hung"}')
    with emulator(tmp_path, *FAST, *limit, constant=False) as engine, httpx.Client(timeout=30) as client:
        body = {"messages": about(text="word " * 60), "stream": True}
        with client.stream("POST", f"{engine.url}/v1/chat/completions", json=body) as first:
            assert first.status_code == 200
            refused = engine.post(body)
        assert refused.status_code == 503
        assert "prefill token backlog" in refused.json()["error"]["message"]
        key = 'vllm:admission_rejections_total{model_name="qwen3-vl-4b",reason="max_num_queued_tokens"}'
        assert engine.metrics()[key] == 1


def test_a_queue_that_filled_during_rendering_refuses_inside_a_stream_with_status_200(tmp_path: Path) -> None:
    slow_to_render = vars(profile.load_profile("a100-qwen3-vl-4b")) | {"render_ms": 1000.0, "iteration_ms": 1000.0}
    (tmp_path / "profile.yaml").write_text(yaml.safe_dump(slow_to_render))
    flags = ("--start-seconds", "0", "--profile", str(tmp_path / "profile.yaml"), "--max-num-queued-reqs", "1")
    with emulator(tmp_path, *flags, constant=False) as engine, ThreadPoolExecutor(2) as both:
        body = {"messages": about(), "max_tokens": 2, "stream": True}
        answers = list(both.map(engine.post, [body, body]))
    assert [answer.status_code for answer in answers] == [200, 200]
    assert sorted("Please try again later" in answer.text for answer in answers) == [False, True]
    assert all(answer.text.endswith("data: [DONE]\n\n") for answer in answers)
