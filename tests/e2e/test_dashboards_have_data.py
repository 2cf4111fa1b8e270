"""Every panel of the dashboards has something to show on a cluster that people use.

MANYEYES_URL=http://localhost:8080 MANYEYES_PROMETHEUS_URL=http://127.0.0.1:9090 pytest tests/e2e/test_dashboards_have_data.py
"""

import base64
import io
import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from loadtest.gateway_client import ADMIN_KEY_VARIABLE, ControllerAnnotations
from manyeyes.cli import secrets
from manyeyes.devcluster.eventually import eventually
from manyeyes.monitoring.grafana import build

ROOT = Path(__file__).resolve().parents[2]
GATEWAY = os.environ.get("MANYEYES_URL", "")
PROMETHEUS = os.environ.get("MANYEYES_PROMETHEUS_URL", "")
DASHBOARDS = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(build.FOLDER.glob("*.json"))]
QUERIES = [
    pytest.param(target["expr"], id=f"{dashboard['title']}, {panel['title']}: {target['legendFormat']}")
    for dashboard in DASHBOARDS
    if dashboard["title"] != "GPU"  # tests/integration/test_status_and_report.py: this cluster has none
    for panel in dashboard["panels"]
    for target in panel.get("targets", [])
]
VARIABLES = {
    variable["name"]: variable["query"]["query"]
    for dashboard in DASHBOARDS
    if dashboard["title"] != "GPU"
    for variable in dashboard["templating"]["list"]
}
CHOICES = {"$pool": ".+", "$engine": ".+", "$__rate_interval": "1m", "$__range": "5m"}
CHAT_S = 10  # two scrapes of the shipped configuration
SEEN_WITHIN_S = 45
"""Rules that look at hours are worked out every 30 s."""
ANSWER_S = 60  # vLLM on CPU, on a busy machine

pytestmark = [
    pytest.mark.skipif(not GATEWAY, reason="MANYEYES_URL is not set: no running cluster to use"),
    pytest.mark.skipif(not PROMETHEUS, reason="MANYEYES_PROMETHEUS_URL is not set: no Prometheus to ask"),
]


@pytest.fixture(scope="module")
def chats() -> Iterator[None]:
    """Short chats about pictures, streamed and not, in turn, in a time that is marked as a load test marks its own."""
    os.environ[ADMIN_KEY_VARIABLE] = secrets.read_admin_key()
    with (
        httpx.Client(base_url=GATEWAY, timeout=ANSWER_S) as client,
        ControllerAnnotations(GATEWAY).during("chats of a test", 600),
    ):
        model = client.get("/v1/models").raise_for_status().json()["data"][0]["id"]
        until = time.monotonic() + CHAT_S
        number = 0
        while number < 4 or time.monotonic() < until:
            body = question(model, number)
            answer = client.post("/v1/chat/completions", json=body | {"stream": number % 2 == 1})
            assert answer.status_code == 200, answer.text
            assert "choices" in answer.text
            number += 1
        yield


def question(model: str, number: int) -> dict[str, Any]:
    """A question about a picture; each picture is asked about twice."""
    file = io.BytesIO()
    Image.new("RGB", (96, 64), (number // 2 % 256, 90, 160)).save(file, "PNG")
    picture = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    content = [
        {"type": "image_url", "image_url": {"url": picture}},
        {"type": "text", "text": "What do you see in this picture?"},
    ]
    return {"model": model, "max_tokens": 12, "messages": [{"role": "user", "content": content}]}


def ask(path: str, **parameters: str) -> Any:
    """The data that Prometheus answers with; a query that it cannot read fails here, with its own words."""
    answer = httpx.get(f"{PROMETHEUS}/api/v1/{path}", params=parameters, timeout=10)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def chosen(query: str) -> str:
    for variable, value in CHOICES.items():
        query = query.replace(variable, value)
    return query


@pytest.mark.usefixtures("chats")
@pytest.mark.parametrize("query", QUERIES)
def test_a_panel_query_returns_a_number(query: str) -> None:
    def numbers() -> list[float]:
        values = [float(series["value"][1]) for series in ask("query", query=chosen(query))["result"]]
        return [value for value in values if math.isfinite(value)]

    eventually(numbers, SEEN_WITHIN_S, 1, f"a number for {chosen(query)}")


@pytest.mark.parametrize("query", VARIABLES.values(), ids=VARIABLES.keys())
def test_a_variable_offers_something_to_choose(query: str) -> None:
    found = re.fullmatch(r"label_values\((.+), (\w+)\)", query)
    assert found
    series, label = found.groups()
    eventually(lambda: ask(f"label/{label}/values", **{"match[]": chosen(series)}), SEEN_WITHIN_S, 1, query)


@pytest.mark.usefixtures("chats")
@pytest.mark.parametrize("name", ["status", "report"])
def test_make_status_and_make_report_work_on_this_host(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "manyeyes.cli", name, "--config", "tests/e2e/cluster.yaml"]
    more = ["--hours", "0.2", "--out", str(tmp_path / "report.html")] if name == "report" else []
    done = subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True, timeout=60)
    said = done.stdout + (tmp_path / "report.html").read_text() if more else done.stdout
    assert done.returncode == 0, done.stdout + done.stderr
    assert "qwen3-vl-tiny" in said
    assert "annotation started: chats of a test" in said
    assert "does not answer" not in said
