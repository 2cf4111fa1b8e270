"""What parts write: one form, no content, enough to follow a request; and traces, which come from the same lines."""

import base64
import hashlib
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from manyeyes.config.credentials import ApiKey, ApiKeys
from manyeyes.devcluster.cluster import QUICK, LocalCluster, local_cluster
from manyeyes.devcluster.eventually import eventually
from manyeyes.devcluster.ports import free_port
from manyeyes.observability.log_format import ALWAYS, LEVELS
from manyeyes.observability.log_lines import LogLine, read_line
from manyeyes.observability.request_trace import trace_request
from tests.e2e.media import about, picture
from tests.integration.documents import document, with_admin_key
from tests.integration.otlp_collector import Collector, attributes, collector
from tests.integration.registry_client import call
from tests.integration.scripted_engine import Asked, Handler, endpoint
from tests.integration.test_adapter import described

AT = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
SECRET = "sk-canary-key-5f1b"
WORDS = "canary-prompt-77aa"
STOP = "canary-stop-31cd"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalCluster, Collector]]:
    folder = with_admin_key(tmp_path_factory.mktemp("local_cluster"))
    (folder / "secrets/foreign.key").write_text(SECRET)
    port = free_port()
    pools = document(
        {"big": ["big-0", "big-1"], "small": ["small-0"], "words": ["late-0"]},
        {"big": {"fallback": "small"}, "words": {"media": {"images_per_prompt": 1, "videos_per_prompt": 0}}},
        adapter={"first_port": free_port(), "ports": 2},
        tracing={"enabled": True, "endpoint": f"http://127.0.0.1:{port}", "sampled_percent": 0},
    )
    keys = ApiKeys(
        keys=(ApiKey(name="alice", sha256=hashlib.sha256(SECRET.encode()).hexdigest()),),
    )
    with (
        collector(port) as taken,
        endpoint(free_port(), repeats) as foreign,
        local_cluster(folder, pools, keys=keys, engine_flags=(*QUICK, "--faults")) as cluster,
    ):
        cluster.client.headers["Authorization"] = f"Bearer {SECRET}"
        cluster.start_page()
        cluster.start_adapter()
        cluster.all_up({"big-0", "big-1", "small-0"})
        body = {"name": "captioner", "pool": "words", "endpoint": described(f"http://{foreign.address}/generate")}
        eventually(lambda: registered(cluster, body), 20, 0.5)
        cluster.answers_from("words", {"captioner"})
        yield cluster, taken


def repeats(handler: Handler, asked: Asked) -> None:
    """Answers, and where it is to fail says what it was asked."""
    if b"fail" in asked.body or WORDS.encode() in asked.body:
        handler.answer(500, b"you said: " + asked.body)
    else:
        handler.answer(200, json.dumps({"output": {"text": "Yes."}, "usage": {"in": 1, "out": 1}}).encode())


def registered(cluster: LocalCluster, body: dict[str, Any]) -> bool:
    reply = call(cluster, "POST", "/engines", json=body)
    assert reply.status_code == 201, reply.text
    return True


def lines(cluster: LocalCluster) -> list[LogLine]:
    """Of every part, as `make logs` reads them."""
    found = []
    for file in sorted(cluster.folder.glob("*.log")):
        service = "gateway" if file.stem in ("access", "nginx") else file.stem
        found += [read_line(service, text) for text in file.read_text().splitlines() if text.strip()]
    return found


def of(cluster: LocalCluster, request: str) -> list[LogLine]:
    return [line for line in lines(cluster) if line.request == request]


def ask(cluster: LocalCluster, request: str, model: str = "big", text: str = "Hello", **more: Any) -> httpx.Response:
    body = {"model": model, "messages": about(picture(64, 64), text=text), "max_tokens": 3, **more}
    return cluster.client.post(f"{cluster.url}/v1/chat/completions", json=body, headers={"X-Request-Id": request})


def test_a_request_is_followed_through_the_gateway_the_engine_that_died_and_the_one_that_answered(running: Any) -> None:
    cluster, _ = running
    faults = f"http://127.0.0.1:{cluster.ports['big-0']}/emulator/faults"
    httpx.post(faults, json={"kind": "poison", "marker": "doom"}).raise_for_status()
    asked = 0

    def second_engine_answered() -> str:
        nonlocal asked
        asked += 1
        request = f"fatal-{asked}"
        assert ask(cluster, request, text=f"doom {asked}").status_code == 200
        found = eventually(lambda: [one for one in of(cluster, request) if one.event == "request"], 20)
        assert ", " in str(found[0].fields["attempts"])
        return request

    request = eventually(second_engine_answered, 20, 0, "a request that kills big-0 is given to big-1")
    eventually(lambda: "big-0 is down" in cluster.log("controller"), 10)
    told = trace_request(lines(cluster), request)
    text = "\n".join(f"{one.source}: {one.text}" for one in told)
    assert re.search(r"gateway: POST /v1/chat/completions from \S+ with key alice, model big, \d+ bytes", text), text
    assert re.search(r"gateway: sent to big-0 \(\S+\): connection lost before the answer began", text), text
    assert re.search(r"gateway: sent to big-1 \(\S+\): 200, first byte after", text), text
    assert "gateway: answered 200 by big-1 of big after" in text
    assert "big-0: request received" in text
    assert "big-0: at the same time: killed" in text
    assert "big-1: request received" in text
    assert re.search(r"controller: state since \S+: big-0 ", text), text
    assert "controller: big-0 is down" in text
    assert "upstream prematurely closed connection" in text, "what nginx itself said of it"
    assert [one.at_s for one in told] == sorted(one.at_s for one in told)
    assert trace_request(lines(cluster), "nobody-asked-this") == []
    cluster.kill("big-0")
    cluster.start_engine("big-0")
    cluster.all_up({"big-0"})


def test_every_line_of_every_part_has_the_one_form(running: Any) -> None:
    cluster, _ = running
    ask(cluster, "form-1")
    assert ask(cluster, "form-2", model="none").status_code == 404
    assert ask(cluster, "form-3", model="words", text="fail").status_code >= 500
    # nginx starts with a line of its own for each module on some machines; such lines are put into the form when they are shown.
    eventually(lambda: {"gateway", "adapter"} <= {line.part for line in of(cluster, "form-3")}, 20)
    files = {file.stem: file.read_text().splitlines() for file in cluster.folder.glob("*.log")}
    parts = {"access": "gateway", "nginx": "gateway", "big-0": "engine", "big-1": "engine", "small-0": "engine"}
    for name, texts in files.items():
        for text in texts:
            if name == "nginx" and not text.startswith("{"):
                assert read_line("gateway", text).event == "nginx", text
                continue
            said = json.loads(text)
            assert list(said)[:4] == list(ALWAYS), text
            assert AT.match(said["at"]), text
            assert abs(read_line(name, text).at_s - time.time()) < 600, "in UTC"
            assert said["level"] in LEVELS
            assert said["part"] == parts.get(name, name)
            assert re.fullmatch(r"[a-z][a-z0-9_]*", said["event"]), text
            if said["part"] == "engine":
                assert (said["engine"], said["pool"]) == (name, name.split("-")[0])
    assert {name for name, texts in files.items() if texts} >= {
        "access",
        "nginx",
        "controller",
        "adapter",
        "webui",
        "big-0",
    }
    assert [line.level for line in of(cluster, "form-2")] == ["warning"]
    assert {line.part: line.level for line in of(cluster, "form-3")}["gateway"] == "error"
    assert {line.event for line in of(cluster, "form-3") if line.part == "adapter"} == {
        "request_received",
        "request_failed",
    }


def test_no_log_holds_a_prompt_a_picture_a_key_or_what_an_endpoint_said_back(running: Any) -> None:
    cluster, _ = running
    shown = picture(80, 80, seed=9)
    pixels = shown["image_url"]["url"].partition(",")[2]
    for number, model in enumerate(("big", "small", "words", "none")):
        body = {"model": model, "messages": about(shown, text=WORDS), "max_tokens": 3, "stop": [STOP]}
        headers = {"X-Request-Id": f"canary-{number}", "Authorization": f"Bearer {SECRET}"}
        httpx.post(f"{cluster.url}/v1/chat/completions", json=body, headers=headers, timeout=30)
        httpx.post(f"{cluster.url}/v1/chat/completions", content=f'{{"model": "{WORDS}', headers=headers)
        httpx.post(
            f"{cluster.url}/v1/completions", json={"model": model, "prompt": WORDS, "max_tokens": 1}, headers=headers
        )
    basic = base64.b64encode(f"me:{SECRET}".encode()).decode()
    httpx.get(f"{cluster.url}/", headers={"Authorization": f"Basic {basic}"})
    eventually(lambda: len(of(cluster, "canary-3")) >= 3, 20)
    everything = "".join(file.read_text() for file in cluster.folder.glob("*.log"))
    assert "canary-0" in everything
    for content in (WORDS, STOP, SECRET, basic, pixels[100:140]):
        assert content not in everything


def test_a_clients_trace_reaches_the_engine_and_the_collector_gets_the_gateways_spans(running: Any) -> None:
    cluster, taken = running
    body = {"model": "small", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-01", "X-Request-Id": "traced-1"}
    reply = cluster.client.post(f"{cluster.url}/v1/chat/completions", json=body, headers=headers)
    assert reply.status_code == 200

    def arrived() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = taken.of_trace(TRACE)
        assert len(found) == 2, found
        return found

    whole, attempt = eventually(arrived, 10)
    assert whole["parentSpanId"] == SPAN
    assert attempt["parentSpanId"] == whole["spanId"]
    said = attributes(whole)
    assert said["manyeyes.request"] == "traced-1"
    assert (said["manyeyes.engine"], said["manyeyes.pool"]) == ("small-0", "small")
    assert said["http.response.status_code"] == "200"
    assert attributes(attempt)["manyeyes.engine"] == "small-0"
    for span in (whole, attempt):
        begin_s, end_s = (int(span[f"{when}TimeUnixNano"]) / 1e9 for when in ("start", "end"))
        assert time.time() - 600 < begin_s <= end_s <= time.time()
    received = next(line for line in of(cluster, "traced-1") if line.part == "engine")
    assert received.fields["trace"] == TRACE, "the engine was given it"


def test_a_request_without_a_trace_is_given_one_and_its_share_is_sampled(running: Any) -> None:
    cluster, taken = running
    seen = len(taken.spans)
    assert ask(cluster, "own-trace").status_code == 200
    line = eventually(lambda: [one for one in of(cluster, "own-trace") if one.part == "gateway"], 20)[0]
    assert re.fullmatch("[0-9a-f]{32}", str(line.fields["trace"]))
    assert (line.fields["parent"], line.fields["traced"]) == ("", "0"), "sampled_percent is 0"
    assert [one.fields["trace"] for one in of(cluster, "own-trace") if one.part == "engine"] == [line.fields["trace"]]
    assert not [span for span in taken.spans[seen:] if attributes(span).get("manyeyes.request") == "own-trace"]
    cluster.configure(cluster.document | {"tracing": cluster.document["tracing"] | {"sampled_percent": 100}})

    def sampled() -> bool:
        ask(cluster, "sampled")
        return any(attributes(span).get("manyeyes.request") == "sampled" for span in taken.spans)

    assert eventually(sampled, 30, 0.5, "all requests are traced, from the configuration on that says so")


def test_a_disk_without_room_for_the_log_stops_no_request(tmp_path: Path) -> None:
    full = tmp_path / "access.log"
    full.symlink_to("/dev/full")
    with local_cluster(tmp_path, document({"big": ["big-0"]})) as cluster:
        try:
            cluster.all_up({"big-0"})
            assert [cluster.ask().status_code for _ in range(50)] == [200] * 50
            eventually(
                lambda: "No space left on device" in cluster.log("nginx"), 20, 0.1, "nginx says that its log is full"
            )
            assert cluster.ask().status_code == 200
        finally:
            full.unlink()  # the stand prints every log of a test that failed, and this one has no end
