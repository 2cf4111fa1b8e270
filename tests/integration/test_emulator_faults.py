"""Faults on command and sleep mode, on an emulated engine as a process of its own."""

import base64
import json
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from manyeyes.devcluster.eventually import eventually
from tests.integration.test_emulator import Emulator, about, emulator, healthy, slow

Begin = Callable[..., None]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Emulator]:
    with emulator(tmp_path, "--faults", "--limit-mm-per-prompt", '{"video":1}') as running:
        yield running


@pytest.fixture
def begin(engine: Emulator) -> Begin:
    def begin(kind: str, **values: object) -> None:
        httpx.post(f"{engine.url}/emulator/faults", json={"kind": kind, **values}).raise_for_status()

    return begin


def end(engine: Emulator) -> None:
    httpx.delete(f"{engine.url}/emulator/faults").raise_for_status()


def ask(engine: Emulator, **more: object) -> httpx.Response:
    return engine.post({"messages": about(), "max_tokens": 5, **more})


def asleep(engine: Emulator) -> bool:
    return bool(httpx.get(f"{engine.url}/is_sleeping").json()["is_sleeping"])


@contextmanager
def streaming(engine: Emulator, body: dict[str, Any]) -> Iterator[Iterator[str]]:
    """The lines of a stream that has begun."""
    with (
        httpx.Client(timeout=30) as client,
        client.stream("POST", f"{engine.url}/v1/chat/completions", json=body | {"stream": True}) as answer,
    ):
        lines = answer.iter_lines()
        next(lines)
        yield lines


def test_a_dead_engine_core_fails_every_request_and_its_process_ends_with_1(engine: Emulator, begin: Begin) -> None:
    with streaming(engine, slow(8000)) as lines:
        begin("dead", exit_s=1)
        rest = [line for line in lines if line]
    assert json.loads(rest[-2][6:])["error"]["code"] == 500
    assert rest[-1] == "data: [DONE]"
    assert httpx.get(f"{engine.url}/health").status_code == 503
    assert ask(engine).json()["error"]["type"] == "InternalServerError"
    assert engine.process.wait(10) == 1


@pytest.mark.parametrize("health", [True, False])
def test_a_hung_engine_takes_requests_and_sends_no_token_until_it_goes_on(
    engine: Emulator, begin: Begin, health: bool
) -> None:
    begin("hung", health=health)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{engine.url}/v1/chat/completions", json={"messages": about()}, timeout=0.5)
    if health:
        assert healthy(engine.url)
    else:
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(f"{engine.url}/health", timeout=0.5)
    end(engine)
    assert ask(engine).status_code == 200
    assert healthy(engine.url)


def test_a_slow_engine_takes_as_many_times_longer(engine: Emulator, begin: Begin) -> None:
    begin("slow", factor=20)
    assert ask(engine, max_tokens=1).elapsed.total_seconds() >= 20 * 0.020


def test_a_share_of_requests_fails_with_the_status_asked_for(engine: Emulator, begin: Begin) -> None:
    begin("errors", rate=0.5, status=502)
    assert {ask(engine, max_tokens=1).status_code for _ in range(40)} == {200, 502}


def test_a_stream_is_cut_after_some_tokens_and_a_whole_answer_in_its_middle(engine: Emulator, begin: Begin) -> None:
    begin("cut", after_tokens=3)
    seen: list[bool] = []
    with pytest.raises(httpx.RemoteProtocolError), streaming(engine, slow(100)) as lines:
        seen.extend('"content":" ' in line for line in lines)  # ends in the error, with what came before it
    assert sum(seen) <= 2  # the first token came with the opening; a reset may overtake what was on its way
    with pytest.raises(httpx.RemoteProtocolError):
        ask(engine)


def test_a_closed_port_opens_again(engine: Emulator, begin: Begin) -> None:
    begin("refuse", for_s=1)
    eventually(lambda: not healthy(engine.url), 5, 0.02, what="the closed port")
    eventually(lambda: healthy(engine.url), 10, 0.05, what="the port that opens again")


def video(seconds: int) -> dict[str, Any]:
    """An MP4 that is nothing but a header of 640 x 480 pixels."""
    movie = struct.pack(">IIIII12x", 0, 0, 0, 1000, seconds * 1000)
    track = bytes(76) + struct.pack(">II", 640 << 16, 480 << 16)
    parts = box(b"mvhd", movie) + box(b"trak", box(b"tkhd", track))
    data = box(b"ftyp", b"mp42" + bytes(8)) + box(b"moov", parts)
    url = "data:video/mp4;base64," + base64.b64encode(data).decode()
    return {"type": "video_url", "video_url": {"url": url}}


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def test_a_long_video_runs_an_engine_out_of_memory_and_a_short_one_does_not(engine: Emulator, begin: Begin) -> None:
    begin("out_of_memory", frames=8)
    assert engine.post({"messages": about(video(4)), "max_tokens": 1}).status_code == 200
    assert engine.post({"messages": about(video(5)), "max_tokens": 1}).status_code == 500
    assert engine.process.wait(10) == 1


@pytest.mark.parametrize("stream", [True, False])
def test_a_poisonous_request_kills_the_process_before_a_byte_of_an_answer(
    engine: Emulator, begin: Begin, stream: bool
) -> None:
    begin("poison", marker="lethal")
    assert ask(engine).status_code == 200
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        engine.post({"messages": about(text="a lethal question"), "stream": stream})
    assert engine.process.wait(10) == 1


def test_a_wrong_fault_is_refused_with_its_reason(engine: Emulator) -> None:
    answer = httpx.post(f"{engine.url}/emulator/faults", json={"kind": "slow", "fact": 3})
    assert answer.status_code == 422
    assert answer.json()["detail"] == "slow: unknown values fact; expected factor, for_s"


def test_faults_and_sleep_have_no_path_unless_they_are_asked_for(tmp_path: Path) -> None:
    with emulator(tmp_path, "--fault", '{"kind":"errors","status":503}') as engine:
        assert httpx.post(f"{engine.url}/emulator/faults", json={"kind": "hung"}).status_code == 404
        assert httpx.post(f"{engine.url}/sleep").status_code == 404
        assert ask(engine).status_code == 503  # from the command line


def test_a_sleeping_engine_is_healthy_and_keeps_requests_until_it_wakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    with emulator(tmp_path, "--enable-sleep-mode", "--speed", "10") as engine:
        assert not asleep(engine)
        with streaming(engine, slow(8000)) as lines:
            assert httpx.post(f"{engine.url}/sleep?level=1").json() == {"status": "sleeping", "level": 1}
            assert '"finish_reason":"abort"' in [line for line in lines if line][-2]
        assert asleep(engine)
        assert healthy(engine.url)
        assert engine.metric("engine_sleep_state", sleep_state="weights_offloaded") == 1
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{engine.url}/v1/chat/completions", json={"messages": about()}, timeout=0.5)
        assert httpx.post(f"{engine.url}/wake_up").json() == {"status": "awake", "tags": None}
        assert not asleep(engine)
        assert ask(engine).status_code == 200


def test_a_sleep_that_waits_lets_running_requests_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    with emulator(tmp_path, "--enable-sleep-mode") as engine, streaming(engine, slow(300)) as lines:
        assert httpx.post(f"{engine.url}/sleep?level=0&mode=wait", timeout=10).status_code == 200
        assert '"finish_reason":"length"' in [line for line in lines if line][-2]
        assert httpx.post(f"{engine.url}/sleep?mode=now").status_code == 422


def test_after_sleep_level_2_the_weights_have_to_be_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    with emulator(tmp_path, "--enable-sleep-mode", "--speed", "10") as engine:
        httpx.post(f"{engine.url}/sleep?level=2", timeout=10)
        reload = {"method": "reload_weights"}
        assert httpx.post(f"{engine.url}/collective_rpc", json=reload).status_code == 500
        httpx.post(f"{engine.url}/wake_up?tags=weights", timeout=10)
        assert asleep(engine)
        httpx.post(f"{engine.url}/wake_up?tags=kv_cache", timeout=10)
        assert not asleep(engine)
        assert engine.post(slow(1)).status_code == 500
        assert httpx.post(f"{engine.url}/collective_rpc", json=reload).status_code == 200
        assert httpx.post(f"{engine.url}/reset_prefix_cache").status_code == 200
        assert engine.post(slow(1) | {"stream": False}).status_code == 200
