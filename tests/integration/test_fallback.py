"""When a pool cannot answer: the next one of its chain does, and a request that kills engines is not handed on for ever."""

import base64
import contextlib
import itertools
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from manyeyes.controller.health.probe import WARM_UP_PNG
from manyeyes.devcluster.cluster import LocalCluster, local_cluster
from manyeyes.devcluster.eventually import eventually
from tests.integration.documents import document
from tests.integration.membership import controller, sentences
from tests.integration.scan.images import png
from tests.integration.scripted_engine import Asked, Behaviour, Endpoint, Handler, answers, dies, endpoint

FAILS = answers(500)


CHAIN = {"first": {"fallback": "second"}, "second": {"fallback": "third"}}
"""The engines of the first two are endpoints that tests start, the last has a real emulator."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with local_cluster(
        tmp_path_factory.mktemp("local_cluster"),
        document({"first": ["late-a", "late-b"], "second": ["late-c"], "third": ["third-0"]}, CHAIN),
    ) as running:
        running.answers_from("third", {"third-0"})
        yield running


@pytest.fixture
def start(cluster: LocalCluster) -> Iterator[Any]:
    """start(name=behaviour, ...) -> the endpoints, up and known to the gateway; gone again afterwards."""
    with contextlib.ExitStack() as stack:

        def begin(**behaviours: Behaviour) -> dict[str, Endpoint]:
            names = {name.replace("_", "-"): does for name, does in behaviours.items()}
            made = {name: stack.enter_context(endpoint(cluster.ports[name], does)) for name, does in names.items()}
            cluster.all_up(set(names))
            return made

        yield begin
    cluster.all_down({"late-a", "late-b", "late-c"})


PNG = "data:image/png;base64," + base64.b64encode(WARM_UP_PNG).decode()
ABOUT_IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PNG}}]}
BODY_NUMBERS = itertools.count()


def ask(cluster: LocalCluster, **more: Any) -> httpx.Response:
    """A request that no test sent before: the gateway remembers requests that ended engines."""
    return cluster.ask("first", **({"user": f"user-{next(BODY_NUMBERS)}"} | more))


def code(reply: httpx.Response) -> str:
    return str(reply.json()["error"]["code"])


def canaries_passed(cluster: LocalCluster, engine: str) -> float:
    name = f'manyeyes_canary_requests_total{{engine="{engine}",pool="first",result="passed"}} '
    lines = controller(cluster, "/metrics").text.splitlines()
    return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))


def served_by(reply: httpx.Response) -> tuple[str, ...]:
    return tuple(reply.headers.get(f"X-ManyEyes-{name}", "") for name in ("Engine", "Pool", "Fallback"))


def begin_stream(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "text/event-stream")
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()


def count(endpoints: dict[str, Endpoint]) -> int:
    return sum(len(one.asked) for one in endpoints.values())


def test_an_empty_pool_and_an_empty_second_one_are_skipped_to_the_end_of_the_chain(cluster: LocalCluster) -> None:
    reply = ask(cluster)
    assert reply.status_code == 200
    assert served_by(reply) == ("third-0", "third", "first")


def test_the_second_pool_answers_before_the_third(cluster: LocalCluster, start: Any) -> None:
    start(late_c=answers())
    assert served_by(ask(cluster)) == ("late-c", "second", "first")


def test_a_pool_back_up_answers_again(cluster: LocalCluster, start: Any) -> None:
    start(late_a=answers())
    assert served_by(ask(cluster)) == ("late-a", "first", "")


@pytest.mark.parametrize("status", [502, 503, 504, 429])
def test_engines_that_refuse_before_the_first_byte_are_passed_over_to_the_fallback(
    cluster: LocalCluster, start: Any, status: int
) -> None:
    made = start(late_a=answers(status), late_b=answers(status))
    assert served_by(ask(cluster)) == ("third-0", "third", "first")
    assert [len(one.asked) for one in made.values()] == [1, 1], "each engine of the pool is asked once"


def test_a_500_of_two_healthy_engines_is_the_clients_mistake(cluster: LocalCluster, start: Any) -> None:
    made = start(late_a=FAILS, late_b=FAILS)
    reply = ask(cluster)
    assert (reply.status_code, code(reply), count(made)) == (422, "engine_cannot_process", 2)
    assert "'first'" in reply.json()["error"]["message"]
    assert "messages[0].content[0] (image_url)" in ask(cluster, messages=[ABOUT_IMAGE]).json()["error"]["message"]
    assert reply.json()["error"]["type"] == "invalid_request_error"


def test_a_500_of_the_only_engine_is_tried_once_more_and_then_the_clients_mistake(
    cluster: LocalCluster, start: Any
) -> None:
    made = start(late_a=FAILS, late_c=answers())
    reply = ask(cluster)
    assert (reply.status_code, code(reply), len(made["late-a"].asked)) == (422, "engine_cannot_process", 2)


def test_a_501_is_the_clients_mistake_and_never_tried_again(cluster: LocalCluster, start: Any) -> None:
    made = start(late_a=answers(501), late_b=answers(501))
    reply = ask(cluster)
    assert (reply.status_code, code(reply), count(made)) == (422, "engine_cannot_process", 1)


def test_requests_at_fault_do_not_make_engines_suspect(cluster: LocalCluster, start: Any) -> None:
    start(late_a=FAILS, late_b=FAILS)
    before = len(sentences(cluster))
    verified = canaries_passed(cluster, "late-a")
    assert {ask(cluster).status_code for _ in range(6)} == {422}
    eventually(lambda: canaries_passed(cluster, "late-a") > verified, 20, 0.1, "a canary request verifies the engine")
    assert not [one for one in sentences(cluster)[before:] if "suspect" in one]
    cluster.all_up({"late-a", "late-b"})


def test_a_500_of_engines_that_are_not_healthy_is_not_the_clients_mistake(cluster: LocalCluster, start: Any) -> None:
    def fails_and_shuts_down(handler: Handler, asked: Asked) -> None:
        handler.endpoint.health = 503
        answers(500)(handler, asked)

    start(late_a=fails_and_shuts_down, late_b=fails_and_shuts_down)
    reply = ask(cluster)
    assert (reply.status_code, code(reply)) == (502, "engine_lost")


def test_a_request_that_kills_engines_is_handed_on_once_and_no_more(cluster: LocalCluster, start: Any) -> None:
    made = start(late_a=dies, late_b=dies, late_c=dies)
    reply = ask(cluster)
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "engine_lost")
    assert count(made) == 2
    assert "third-0" not in reply.headers.get("X-ManyEyes-Engine", "")


def test_a_request_that_killed_one_engine_and_found_another_full_is_given_to_one_more(
    cluster: LocalCluster, start: Any
) -> None:
    made = start(late_a=dies, late_b=answers(503), late_c=dies)
    for _ in range(2):
        reply = ask(cluster)
        assert (reply.status_code, reply.json()["error"]["code"]) == (502, "engine_lost")
    assert (len(made["late-a"].asked), len(made["late-c"].asked)) == (2, 2)


@pytest.mark.parametrize("broken", [FAILS, dies], ids=["500", "lost"])
def test_what_one_engine_fails_another_answers_and_the_client_sees_nothing(
    cluster: LocalCluster, start: Any, broken: Behaviour
) -> None:
    made = start(late_a=broken, late_b=answers())
    assert [ask(cluster).status_code for _ in range(4)] == [200] * 4
    assert made["late-a"].asked


def test_a_request_that_ended_two_engines_reaches_no_engine_for_ten_minutes(cluster: LocalCluster, start: Any) -> None:
    made = start(late_a=dies, late_b=dies, late_c=dies)
    assert code(ask(cluster, user="bomb")) == "engine_lost"
    asked = count(made)
    reply = ask(cluster, user="bomb")
    assert (reply.status_code, code(reply), count(made)) == (422, "request_ended_engines", asked)
    assert "UTC" in reply.json()["error"]["message"]
    assert code(ask(cluster, user="another bomb")) == "engine_lost", "another request of the same length is not refused"


def test_an_answer_clears_a_request_that_lost_an_engine(cluster: LocalCluster, start: Any) -> None:
    deaths = itertools.count()

    def dies_every_other_time(handler: Handler, asked: Asked) -> None:
        (dies if next(deaths) % 2 == 0 else answers())(handler, asked)

    made = start(late_a=dies_every_other_time)
    assert [ask(cluster, user="innocent").status_code for _ in range(4)] == [200] * 4
    assert len(made["late-a"].asked) == 8


def test_large_requests_are_recognized_too(cluster: LocalCluster, start: Any) -> None:
    start(late_a=dies, late_b=dies, late_c=dies)
    url = "data:image/jpeg;base64," + base64.b64encode(png(8, 6) + bytes(4_500_000)).decode()
    content = [{"type": "image_url", "image_url": {"url": url}}]
    message = {"role": "user", "content": content}
    assert code(ask(cluster, user="large", messages=[message])) == "engine_lost"
    assert code(ask(cluster, user="large", messages=[message])) == "request_ended_engines"
    content[0]["image_url"] = {"url": url[:-1_000_000] + "B" + url[-999_999:]}
    assert code(ask(cluster, user="large", messages=[message])) == "engine_lost", "one byte differs"


def test_a_single_engine_that_dies_is_asked_no_more_than_twice(cluster: LocalCluster, start: Any) -> None:
    # Once more, because nginx gives up early when members come or go: that is the second and last loss.
    made = start(late_a=dies, late_c=answers())
    assert ask(cluster).status_code == 502
    assert len(made["late-a"].asked) == 2


def test_after_the_first_byte_nothing_is_tried_again_and_the_client_sees_the_cut(
    cluster: LocalCluster, start: Any
) -> None:
    def cut(handler: Handler, asked: Asked) -> None:
        begin_stream(handler)
        handler.wfile.write(b'1a\r\ndata: {"choices":[{}]}\n\n\r\n')
        handler.wfile.flush()
        time.sleep(0.2)
        handler.drop()

    made = start(late_a=cut, late_b=cut)
    with pytest.raises(httpx.RemoteProtocolError):
        ask(cluster, stream=True)
    assert count(made) == 1


def test_each_token_reaches_the_client_before_the_engine_sends_the_next_one(cluster: LocalCluster, start: Any) -> None:
    came, missed = threading.Semaphore(0), []

    def step_by_step(handler: Handler, asked: Asked) -> None:
        begin_stream(handler)
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


def test_a_client_that_goes_away_closes_the_engines_connection(cluster: LocalCluster, start: Any) -> None:
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


def test_a_request_that_is_sent_all_the_time_is_not_refused_because_engines_ended(
    cluster: LocalCluster, start: Any
) -> None:
    made = start(late_a=answers(), late_b=answers(), late_c=answers())
    assert ask(cluster, user="monitor").status_code == 200
    for engine in made.values():
        engine.does = dies
    assert code(ask(cluster, user="monitor")) == "engine_lost"
    for engine in made.values():
        engine.does = answers()
    assert ask(cluster, user="monitor").status_code == 200


def test_nothing_left_in_the_chain_is_503_with_retry_after(tmp_path: Path) -> None:
    with local_cluster(
        tmp_path, document({pool: [f"late-{pool}"] for pool in ("first", "second", "third")}, CHAIN)
    ) as cluster:
        eventually(lambda: ask(cluster).status_code == 503, 10, 0.2, "503")
        reply = ask(cluster)
        assert (reply.json()["error"]["code"], reply.headers["Retry-After"]) == ("no_engine", "5")
        assert cluster.healthz()["status"] != "ok"


def test_a_request_that_ends_one_engine_and_later_another_is_refused_then(tmp_path: Path) -> None:
    full = answers(503)
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(local_cluster(tmp_path, document({"first": ["late-a", "late-b"]})))
        first, second = (
            stack.enter_context(endpoint(running.ports[name], does))
            for name, does in (("late-a", dies), ("late-b", full))
        )
        running.all_up({"late-a", "late-b"})
        # With a full engine beside it, the request gets no answer.
        eventually(lambda: ask(running, user="bomb").status_code == 429 and first.asked, 10, 0.1, "an engine ends")
        first.does, second.does = full, dies
        eventually(lambda: code(ask(running, user="bomb")) == "engine_lost", 10, 0.1, "another engine ends")
        asked = len(first.asked) + len(second.asked)
        assert code(ask(running, user="bomb")) == "request_ended_engines"
        assert len(first.asked) + len(second.asked) == asked
