"""When a pool cannot answer: the next one of its chain does, and a request that kills engines is not handed on for ever."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.eventually import eventually
from tests.process.endpoint import Asked, Behaviour, Endpoint, Handler, answers, dies, endpoint
from tests.process.stand import Stand, stand

FAILS = answers(500)


def chain() -> dict[str, Any]:
    """Three pools; the engines of the first are endpoints that tests start, the last has real emulators."""
    return {
        "pools": [
            {"name": "first", "model": "org/First", "fallback": "second"},
            {"name": "second", "model": "org/Second", "fallback": "third"},
            {"name": "third", "model": "org/Third"},
        ],
        "engines": [
            {"name": "late-a", "pool": "first"},
            {"name": "late-b", "pool": "first"},
            {"name": "late-c", "pool": "second"},
            {"name": "third-0", "pool": "third"},
        ],
    }


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with stand(tmp_path_factory.mktemp("stand"), chain()) as running:
        running.answers_from("third", {"third-0"})
        yield running


@pytest.fixture
def start(cluster: Stand) -> Iterator[Any]:
    """start(name=behaviour, ...) -> the endpoints, up and known to the gateway; gone again afterwards."""
    with contextlib.ExitStack() as stack:

        def begin(**behaviours: Behaviour) -> dict[str, Endpoint]:
            names = {name.replace("_", "-"): does for name, does in behaviours.items()}
            made = {name: stack.enter_context(endpoint(cluster.ports[name], does)) for name, does in names.items()}
            cluster.all_up(set(names))
            return made

        yield begin
    cluster.all_down({"late-a", "late-b", "late-c"})


def ask(cluster: Stand, **more: Any) -> httpx.Response:
    return cluster.ask("first", **more)


def served_by(reply: httpx.Response) -> tuple[str, ...]:
    return tuple(reply.headers.get(f"X-ManyEyes-{name}", "") for name in ("Engine", "Pool", "Fallback"))


def count(endpoints: dict[str, Endpoint]) -> int:
    return sum(len(one.asked) for one in endpoints.values())


def test_an_empty_pool_and_an_empty_second_one_are_skipped_to_the_end_of_the_chain(cluster: Stand) -> None:
    reply = ask(cluster)
    assert reply.status_code == 200
    assert served_by(reply) == ("third-0", "third", "first")


def test_the_second_pool_answers_before_the_third(cluster: Stand, start: Any) -> None:
    start(late_c=answers())
    assert served_by(ask(cluster)) == ("late-c", "second", "first")


def test_a_pool_back_up_answers_again(cluster: Stand, start: Any) -> None:
    start(late_a=answers())
    assert served_by(ask(cluster)) == ("late-a", "first", "")


@pytest.mark.parametrize("status", [502, 503, 504, 429])
def test_engines_that_refuse_before_the_first_byte_are_passed_over_to_the_fallback(
    cluster: Stand, start: Any, status: int
) -> None:
    made = start(late_a=answers(status), late_b=answers(status))
    assert served_by(ask(cluster)) == ("third-0", "third", "first")
    assert [len(one.asked) for one in made.values()] == [1, 1], "each engine of the pool is asked once"


def test_a_500_is_tried_once_more_and_then_the_clients_to_see(cluster: Stand, start: Any) -> None:
    made = start(late_a=FAILS, late_b=FAILS)
    reply = ask(cluster)
    assert (reply.status_code, count(made)) == (500, 2)


def test_a_500_of_one_engine_is_answered_by_the_other(cluster: Stand, start: Any) -> None:
    made = start(late_a=FAILS, late_b=answers())
    seen = [ask(cluster) for _ in range(4)]
    assert [reply.status_code for reply in seen] == [200] * 4
    assert made["late-a"].asked


def test_a_request_that_kills_engines_is_handed_on_once_and_no_more(cluster: Stand, start: Any) -> None:
    made = start(late_a=dies, late_b=dies, late_c=dies)
    reply = ask(cluster)
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "engine_lost")
    assert count(made) == 2
    assert "third-0" not in reply.headers.get("X-ManyEyes-Engine", "")


def test_a_request_that_killed_one_engine_and_found_another_full_is_given_to_one_more(
    cluster: Stand, start: Any
) -> None:
    made = start(late_a=dies, late_b=answers(503), late_c=dies)
    for _ in range(2):
        reply = ask(cluster)
        assert (reply.status_code, reply.json()["error"]["code"]) == (502, "engine_lost")
    assert (len(made["late-a"].asked), len(made["late-c"].asked)) == (2, 2)


def test_an_engine_lost_once_is_answered_by_another_and_the_client_sees_nothing(cluster: Stand, start: Any) -> None:
    made = start(late_a=dies, late_b=answers())
    assert [ask(cluster).status_code for _ in range(4)] == [200] * 4
    assert made["late-a"].asked


def test_a_single_engine_that_dies_is_asked_no_more_than_twice(cluster: Stand, start: Any) -> None:
    # Once more, because nginx gives up early when members come or go: that is the second and last loss.
    made = start(late_a=dies, late_c=answers())
    assert ask(cluster).status_code == 502
    assert len(made["late-a"].asked) == 2


def test_after_the_first_byte_nothing_is_tried_again_and_the_client_sees_the_cut(cluster: Stand, start: Any) -> None:
    def cut(handler: Handler, asked: Asked) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b'1a\r\ndata: {"choices":[{}]}\n\n\r\n')
        handler.wfile.flush()
        time.sleep(0.2)
        handler.drop()

    made = start(late_a=cut, late_b=cut)
    with pytest.raises(httpx.RemoteProtocolError):
        ask(cluster, stream=True)
    assert count(made) == 1


def test_each_token_reaches_the_client_before_the_engine_sends_the_next_one(cluster: Stand, start: Any) -> None:
    came, missed = threading.Semaphore(0), []

    def step_by_step(handler: Handler, asked: Asked) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for number in range(20):
            event = f'data: {{"n":{number}}}\n\n'.encode()
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
            if not came.acquire(timeout=20):  # a proxy that buffers keeps it until more has come
                missed.append(number)
                break
        handler.wfile.write(b"0\r\n\r\n")

    start(late_a=step_by_step, late_b=step_by_step)
    arrived = []
    body = {"model": "first", "messages": [], "stream": True}
    with httpx.stream("POST", f"{cluster.url}/v1/chat/completions", json=body, timeout=60) as reply:
        for line in reply.iter_lines():
            if line.startswith("data: "):
                arrived.append(json.loads(line[6:])["n"])
                came.release()
    assert (arrived, missed) == (list(range(20)), [])


def test_a_client_that_goes_away_closes_the_engines_connection(cluster: Stand, start: Any) -> None:
    gone: list[float] = []

    def slow(handler: Handler, asked: Asked) -> None:
        started = time.monotonic()
        handler.connection.settimeout(20)
        if handler.connection.recv(1) == b"":
            gone.append(time.monotonic() - started)
        handler.close_connection = True

    start(late_a=slow)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{cluster.url}/v1/chat/completions", json={"model": "first", "messages": []}, timeout=0.5)
    # The handler waits for 20 s: it is told long before.
    eventually(lambda: gone, 10, 0.1, "the engine sees the client leave")


def test_nothing_left_in_the_chain_is_503_with_retry_after(tmp_path: Path) -> None:
    document = chain()
    document["engines"] = [{"name": f"late-{pool['name']}", "pool": pool["name"]} for pool in document["pools"]]
    with stand(tmp_path, document) as cluster:
        eventually(lambda: ask(cluster).status_code == 503, 10, 0.2, "503")
        reply = ask(cluster)
        assert (reply.json()["error"]["code"], reply.headers["Retry-After"]) == ("no_engine", "5")
        assert reply.elapsed.total_seconds() < 1
