"""What the containers of the running cluster print: one form, no content, and a request followed from the gateway to vLLM."""

import os
import subprocess

import httpx
import pytest

from manyeyes.devcluster.eventually import eventually
from manyeyes.observability.log_format import ALWAYS, LEVELS
from manyeyes.observability.log_lines import read_compose_line
from tests.e2e.media import about, picture
from tests.e2e.test_cluster import MODEL, PROJECT, URL, docker

pytestmark = pytest.mark.skipif(not URL, reason="MANYEYES_URL is not set: no running cluster")
OURS = {"gateway", "controller", "webui", "models", "cpu-0", "cpu-1"}
WORDS, STOP, KEY = "canary-prompt-c41e", "canary-stop-c41e", "canary-key-c41e"


def logs(**options: str) -> str:
    """What `make logs` prints."""
    given = [
        f"{name}={value}" for name, value in {"CONFIG": "tests/e2e/cluster.yaml", "FOLLOW": "no", **options}.items()
    ]
    made = subprocess.run(["make", "logs", *given], capture_output=True, text=True, env=os.environ, check=False)
    return made.stdout + made.stderr


def printed(service: str) -> list[str]:
    run = subprocess.run(["docker", "logs", f"{PROJECT}-{service}-1"], capture_output=True, text=True, check=True)
    return (run.stdout + run.stderr).splitlines()


def ask(request: str) -> httpx.Response:
    body = {"model": MODEL, "messages": about(picture(), text=WORDS), "max_tokens": 2, "stop": [STOP]}
    headers = {"X-Request-Id": request, "Authorization": f"Bearer {KEY}"}
    return httpx.post(f"{URL}/v1/chat/completions", json=body, headers=headers, timeout=60)


def test_a_request_is_followed_from_the_gateway_into_vllm_and_one_that_never_was_is_said_to_be_none() -> None:
    engine = ask("followed-1").headers["X-ManyEyes-Engine"]

    def told() -> str:
        said = logs(REQUEST="followed-1")
        assert f"answered 200 by {engine} of {MODEL}" in said, said
        return said

    said = eventually(told, 10, 0.5)
    assert f"{engine:11} request received" in said, said
    assert f"sent to {engine} (" in said
    assert f": {engine} is" in said, "what the controller knew: that it is up, or let in again after a restart"
    assert "no log contains request never-1" in logs(REQUEST="never-1")


def test_what_parts_of_ours_print_is_in_the_one_form_and_the_rest_is_put_into_it() -> None:
    for service in OURS:
        lines = [text for text in printed(service) if text.startswith("{")]
        assert lines, f"{service} printed no line in the form"
    for text in logs(RAW="1").splitlines():
        if text.startswith("{"):
            line = read_compose_line(f"x-1  | {text}")
            assert line.event
            assert line.level in LEVELS
            assert all(f'"{name}"' in text for name in ALWAYS)
        else:
            raise AssertionError(f"not a line of JSON: {text[:200]}")


def test_no_container_prints_what_was_asked() -> None:
    assert ask("canary-1").status_code == 200
    broken = {
        "model": MODEL,
        "messages": about({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{WORDS}"}}),
    }
    httpx.post(f"{URL}/v1/chat/completions", json=broken, timeout=60)
    httpx.post(f"{URL}/v1/completions", json={"model": MODEL, "prompt": WORDS, "max_tokens": 1}, timeout=60)
    eventually(lambda: "canary-1" in "".join(printed("gateway")), 5)
    services = docker(
        "ps",
        "--all",
        "--filter",
        f"label=com.docker.compose.project={PROJECT}",
        "--format",
        '{{.Label "com.docker.compose.service"}}',
    )
    for service in services.split():
        for content in (WORDS, STOP, KEY):
            assert content not in "\n".join(printed(service)), service
