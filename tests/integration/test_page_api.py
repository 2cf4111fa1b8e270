"""Every action of the page is an endpoint of its API: gradio_client, through the real nginx, against emulated engines."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pypdfium2
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from manyeyes.devcluster.cluster import QUICK, LocalCluster
from manyeyes.devcluster.eventually import eventually
from tests.browser.webui_cluster import ENGINES, page_stand
from webui import samples

ENDPOINTS = {
    "models", "chat", "estimate", "chat_code", "chat_markdown", "documents", "compare", "fallback", "individual", "ground",
    "cluster", "drain", "resume", "scale", "load_start", "load_stop", "load_stats",
}  # fmt: skip
ADMIN_KEY = "me-admin-secret-of-these-tests"
RECEIPT = str(samples.HERE / "receipt.png")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with page_stand(tmp_path_factory.mktemp("stand"), (*QUICK, "--faults"), ADMIN_KEY) as running:
        yield running


@pytest.fixture(scope="module")
def client(cluster: LocalCluster) -> Client:
    return Client(cluster.url, verbose=False)


def fault(cluster: LocalCluster, engine: str, **values: Any) -> None:
    url = f"http://127.0.0.1:{cluster.ports[engine]}/emulator/faults"
    httpx.post(url, json=values).raise_for_status()


@pytest.fixture
def _sound(cluster: LocalCluster) -> Iterator[None]:
    yield
    for engine in ENGINES:
        httpx.delete(f"http://127.0.0.1:{cluster.ports[engine]}/emulator/faults")


def test_every_endpoint_has_a_name_and_no_other_is_offered(client: Client) -> None:
    named = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert {name.removeprefix("/") for name in named} == ENDPOINTS


def test_a_picture_is_answered_with_all_that_the_page_shows(cluster: LocalCluster, client: Client) -> None:
    found = client.predict("What is this?", [handle_file(RECEIPT)], "qwen3-vl-8b", api_name="/chat")
    assert "1 image of 420 x 520" in found["text"]
    assert found["engine"] in {"gpu-0", "gpu-1"}
    assert found["pool"] == "qwen3-vl-8b"
    asked = next(text for text in cluster.log("webui").splitlines() if found["request_id"] in text)
    assert '"event": "asked"' in asked
    assert f'"engine": "{found["engine"]}"' in asked, "so that `make logs REQUEST=` tells what the page saw"
    assert "What is this?" not in cluster.log("webui")
    assert found["first_token_ms"] > 0
    assert 0 < found["tokens_vision_estimate"] < found["tokens_in"]
    assert found["error"] is None


def test_an_estimate_is_what_the_engine_counts(client: Client, tmp_path: Path) -> None:
    Image.new("RGB", (1600, 1200), "teal").save(tmp_path / "wall.png")
    file = str(tmp_path / "wall.png")
    told = client.predict([handle_file(file)], "qwen3-vl-8b", api_name="/estimate")
    with_it = client.predict("x", [handle_file(file)], "qwen3-vl-8b", api_name="/chat")
    without = client.predict("x", [], "qwen3-vl-8b", api_name="/chat")
    assert told["vision_tokens"] == with_it["tokens_in"] - without["tokens_in"]
    assert with_it["files"] == ["wall.png: 1600 × 1200 scaled down to 1280 × 960"]


def test_a_video_is_seen_in_the_frames_that_were_wanted(client: Client) -> None:
    video = str(samples.HERE / "ball.webm")
    told = client.predict([handle_file(video)], "qwen3-vl-8b", 1280, 2.0, 6, api_name="/estimate")
    assert told["files"][0]["as_sent"] == "6 frames of 6 s"
    found = client.predict("x", [handle_file(video)], "qwen3-vl-8b", most_frames=6, frames_per_s=2.0, api_name="/chat")
    assert "You sent 1 video" in found["text"]
    assert found["files"] == ["ball.webm: 6 of 72 frames"]


def test_a_chat_goes_on_with_its_history(client: Client) -> None:
    history = [
        {"role": "user", "text": "one two three", "files": []},
        {"role": "assistant", "text": "four", "note": ""},
    ]
    found = client.predict("five", [], "qwen3-vl-8b", history=history, api_name="/chat")
    assert "Your text has 5 words" in found["text"]


def test_an_unknown_model_is_an_answer_that_says_what_to_do(client: Client) -> None:
    found = client.predict("hi", [], "no-such-model", api_name="/chat")
    assert "Choose another model" in found["error"]


@pytest.mark.parametrize("path", ["/etc/passwd", "/etc/passwd.png"])
def test_a_file_of_the_server_cannot_be_named(client: Client, path: str) -> None:
    found = client.predict("hi", [{"path": path}], "qwen3-vl-8b", api_name="/chat")
    assert "not uploaded" in found["error"]


def test_the_code_names_the_gateways_own_address(client: Client, cluster: LocalCluster) -> None:
    code = client.predict("curl", "hi", [handle_file(RECEIPT)], "qwen3-vl-8b", api_name="/chat_code")
    assert f"{cluster.url}/v1/chat/completions" in code
    assert "base64 -w0 receipt.png" in code


@pytest.mark.usefixtures("_sound")
def test_one_failed_page_loses_no_other_and_pages_spread_over_engines(
    client: Client, cluster: LocalCluster, tmp_path: Path
) -> None:
    document = pypdfium2.PdfDocument.new()
    for _ in range(7):
        document.new_page(200, 300)
    document.save(tmp_path / "book.pdf")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    files = [handle_file(str(tmp_path / name)) for name in ("book.pdf", "broken.png")]
    found = client.predict(files, model="qwen3-vl-8b", at_once=4, api_name="/documents")["pages"]
    assert [page["state"] for page in found] == ["done"] * 7 + ["failed"]
    assert "broken.png is not an image" in found[7]["error"]
    assert {page["engine"] for page in found[:7]} == {"gpu-0", "gpu-1"}


def test_a_schema_gives_fields(client: Client) -> None:
    schema = {"type": "object", "properties": {"total": {"type": "number"}, "kind": {"enum": ["receipt"]}}}
    [page] = client.predict(
        [handle_file(RECEIPT)], model="qwen3-vl-8b", schema=json.dumps(schema), api_name="/documents"
    )["pages"]
    assert page["fields"] == {"total": 1.5, "kind": "receipt"}


def test_two_models_are_compared(client: Client) -> None:
    found = client.predict("hi", ["qwen3-vl-8b", "qwen3-vl-4b"], api_name="/compare")
    assert [answer["pool"] for answer in found["answers"]] == ["qwen3-vl-8b", "qwen3-vl-4b"]
    assert all(answer["verdict"] for answer in found["answers"])
    assert found["speed_up"] >= 1


def test_each_model_gets_its_own_prompt(client: Client) -> None:
    questions = [
        {"model": "qwen3-vl-8b", "text": "one", "files": []},
        {"model": "qwen3-vl-4b", "text": "one two three", "files": []},
    ]
    found = client.predict(questions, api_name="/individual")["answers"]
    assert "1 word." in found[0]["text"]
    assert "3 words." in found[1]["text"]


def test_a_wrong_primary_is_told_and_the_fallback_answers(client: Client, cluster: LocalCluster) -> None:
    found = client.predict("hi", "Primary with a wrong address", fallback_model="qwen3-vl-4b", api_name="/fallback")
    first, second = found["attempts"]
    assert found["answered_by"] == "Fallback"
    assert "cannot be reached" in first["error"]
    assert (second["engine"], second["error"]) == ("gpu-2", None)


def test_an_address_that_the_operator_did_not_name_is_not_asked(client: Client, cluster: LocalCluster) -> None:
    inside = cluster.ports["gpu-0"]
    for card in ("primary", "fallback"):
        for url in (
            "http://169.254.169.254/v1",
            "http://[::ffff:169.254.169.254]/v1",
            f"http://127.0.0.1:{inside}/v1",
            f"http://localhost:{cluster.ports['page']}/v1",
            f"http://127.0.0.1:{cluster.ports['page']}/v1/../../status",
            f"http://127.0.0.1:{cluster.ports['page']}/v1?x=",
            "file:///etc/passwd",
        ):
            for way in ("Primary as configured", "Primary with a wrong address", "Through the gateway"):
                with pytest.raises(AppError, match="is not among the addresses of this page"):
                    client.predict("hi", way, **{f"{card}_base_url": url}, api_name="/fallback")


def test_the_gateways_own_address_may_be_named(client: Client, cluster: LocalCluster) -> None:
    own = f"http://127.0.0.1:{cluster.ports['page']}/v1"
    found = client.predict(
        "hi", primary_base_url=own, primary_model="qwen3-vl-4b", primary_api_key="x", api_name="/fallback"
    )
    assert found["attempts"][0]["engine"] == "gpu-2"


def test_boxes_come_back_in_thousandths(client: Client) -> None:
    screen = str(samples.screens()[0])
    found = client.predict(handle_file(screen), "the Submit button", "Find (boxes)", "qwen3-vl-8b", api_name="/ground")
    [mark] = found["marks"]
    assert mark["kind"] == "box"
    assert all(0 <= value <= 1000 for value in mark["at"])
    assert (found["width"], found["height"]) == (960, 600)


@pytest.mark.usefixtures("_sound")
def test_an_answer_that_an_engine_cuts_goes_on_on_another_one(client: Client, cluster: LocalCluster) -> None:
    def cut_and_whole() -> dict[str, Any] | None:
        fault(cluster, "gpu-0", kind="cut", rate=1.0, after_tokens=4)
        found = client.predict("Tell me a long story", [], "qwen3-vl-8b", api_name="/chat")
        return dict(found) if found["continued_after"] == ["gpu-0"] and not found["error"] else None

    found = eventually(cut_and_whole, 30, 0, "the engine that cuts is asked")
    assert found
    whole = client.predict("Tell me a long story", [], "qwen3-vl-4b", api_name="/chat")["text"]
    words = found["text"].replace(" *⟨another engine continues, gpu-0 failed⟩* ", "")
    assert words == whole  # no word twice, none lost


def test_an_engine_is_drained_and_resumed_with_the_key_and_not_without(client: Client, cluster: LocalCluster) -> None:
    with pytest.raises(AppError, match="admin key"):
        client.predict("gpu-1", "", api_name="/drain")
    with pytest.raises(AppError, match="not the admin key"):
        client.predict("gpu-1", "guess", api_name="/drain")
    assert "gpu-1" in client.predict("gpu-1", ADMIN_KEY, api_name="/drain")

    def states() -> dict[str, str]:
        pools = client.predict(api_name="/cluster")["pools"]
        return {engine["name"]: engine["state"] for pool in pools for engine in pool["engines"]}

    eventually(lambda: states()["gpu-1"] == "draining", 10, 0.2, "gpu-1 drains")
    client.predict("gpu-1", ADMIN_KEY, api_name="/resume")
    eventually(lambda: states()["gpu-1"] == "up", 10, 0.2, "gpu-1 is up")
    assert ADMIN_KEY not in cluster.log("webui")


def test_a_load_test_that_does_not_run_is_told(client: Client) -> None:
    assert client.predict(api_name="/load_stats") == {"state": "absent"}
    with pytest.raises(AppError, match="manyeyes locust"):
        client.predict(10, ADMIN_KEY, api_name="/load_start")


def test_a_load_test_starts_and_stops_with_the_admin_key_only(client: Client) -> None:
    for call in ((10, "", "/load_start"), ("", "/load_stop")):
        with pytest.raises(AppError, match="requires the admin key"):
            client.predict(*call[:-1], api_name=call[-1])
