"""`make status`, `manyeyes report` and the GPU dashboard on a real controller, real engines (emulated), a real Prometheus and its rules."""

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import pytest

from manyeyes.devcluster.cluster import ROOT, LocalCluster, local_cluster
from manyeyes.devcluster.eventually import eventually
from manyeyes.monitoring.grafana import build
from manyeyes.monitoring.prometheus_client import PrometheusClient
from tests.integration.documents import document, with_admin_key
from tests.integration.prometheus_fixture import prometheus_beside
from tests.integration.registry_client import call

GPU_PANELS = json.loads((build.FOLDER / "gpu.json").read_text(encoding="utf-8"))["panels"]
WITHIN_S = 60


@dataclass
class Seen:
    """A stand, its Prometheus, and what `python -m manyeyes.cli` says of both."""

    running: LocalCluster
    prometheus: PrometheusClient

    def command(self, *arguments: str) -> list[str]:
        controller = f"http://127.0.0.1:{self.running.ports['controller']}"
        where = ["--controller", controller, "--prometheus", self.prometheus.url]
        config = ["--config", str(self.running.folder / "cluster.yaml")]
        return [sys.executable, "-m", "manyeyes.cli", *arguments, *config, *where]

    def status(self) -> tuple[int, str]:
        done = subprocess.run(
            self.command("status"), cwd=ROOT, env={**os.environ, "COLUMNS": "80"}, capture_output=True, text=True, timeout=60
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """Two pools under a little load, marked as a load test marks itself."""
    pools = document(
        {"big": ["big-0", "big-1"], "small": ["small-0"]}, {"big": {"fallback": "small", "slo": {"latency_s": 7}}}
    )
    with local_cluster(with_admin_key(tmp_path_factory.mktemp("local_cluster")), pools) as running:
        running.all_up({"big-0", "big-1", "small-0"})
        with prometheus_beside(running) as prometheus:
            assert call(running, "POST", "/annotations", json={"text": "a load test"}).status_code == 201
            with asking(running):
                yield Seen(running, prometheus)


@contextlib.contextmanager
def asking(running: LocalCluster) -> Iterator[None]:
    """Two people, one for each pool, with a pause between their questions."""
    done = threading.Event()

    def person(model: str) -> None:
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5}
        with httpx.Client(timeout=30, trust_env=False) as client:
            while not done.wait(0.1):
                with contextlib.suppress(httpx.TransportError):
                    client.post(f"{running.url}/v1/chat/completions", json=body)

    people = [threading.Thread(target=person, args=(model,)) for model in ("big", "small")]
    for one in people:
        one.start()
    yield
    done.set()
    for one in people:
        one.join()


def rows(text: str) -> dict[str, list[str]]:
    """The words of each line, by its first one."""
    return {words[0]: words[1:] for line in text.splitlines() if (words := line.split())}


def test_status_shows_what_users_and_engines_have_and_ends_with_0(seen: Seen) -> None:
    def told() -> dict[str, list[str]]:
        code, text = seen.status()
        assert code == 0, text
        assert max(map(len, text.splitlines())) <= 80
        found = rows(text)
        assert found["big"][:3] == ["all", "up", "2/2"], text
        assert found["big"][3] not in ("–", "0.0"), text
        assert found["big"][-1] == "0.0%", text
        assert found["big-0"][0] == "up", text
        assert all(re.fullmatch(r"\d+%", found[name][-1]) for name in ("big-0", "big-1", "small-0")), text
        return found

    eventually(told, WITHIN_S, 0.5, "rates and shares are known")


def test_status_says_which_pool_is_empty_why_and_ends_with_1(seen: Seen) -> None:
    seen.running.kill("small-0")
    try:
        seen.running.all_down({"small-0"})
        code, text = seen.status()
        assert code == 1, text
        assert rows(text)["small"][:2] == ["EMPTY", "0/1"], text
        assert "small-0 is down: nothing listens there" in text
    finally:
        seen.running.start_engine("small-0")
        seen.running.all_up({"small-0"})


def test_status_that_watches_ends_cleanly_with_ctrl_c(seen: Seen) -> None:
    ours, theirs = os.openpty()
    watching = subprocess.Popen(
        seen.command("status", "--watch"),
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown, stopped = b"", False
    try:
        until = time.monotonic() + WITHIN_S
        while time.monotonic() < until and (more := more_of(ours)) is not None:
            shown += more
            if b"big-0" in shown and not stopped:
                stopped = True
                watching.send_signal(signal.SIGINT)
        assert watching.wait(timeout=20) == 0, shown[-2000:]
    finally:
        watching.kill()
        watching.wait()
        os.close(ours)
    assert b"Traceback" not in shown
    assert b"\x1b[?1049l" in shown, "the terminal is as it was before"


def more_of(terminal: int) -> bytes | None:
    """What came within a moment; None once the other side is closed."""
    readable, _, _ = select.select([terminal], [], [], 0.2)
    try:
        return os.read(terminal, 65536) if readable else b""
    except OSError:
        return None


def test_the_report_is_one_file_with_promises_charts_marks_and_events(seen: Seen, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    command = seen.command("report", "--hours", "0.1", "--out", str(file))

    def written() -> str:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        text = file.read_text()
        assert "No requests" not in text
        assert "Nothing to draw" not in text, re.findall(r"<b>([^<]+)</b>[^<]*</figcaption><p", text)
        return text

    text = eventually(written, WITHIN_S, 1, "every chart has a line")
    assert "objective 95 % in 7 s" in text.replace("\u00a0", " ")
    assert "Blue spans are marks: a load test" in text
    assert "annotation started: a load test" in text
    assert "emulated, so no model runs" in text
    assert text.count("<svg") == 10
    assert text.count(">emulated</text>") == 10, "every chart says so"
    assert "<script" not in text
    assert "http://" not in text
    assert "https://" not in text


@pytest.mark.parametrize(
    "panel", [panel for panel in GPU_PANELS if panel.get("targets")], ids=lambda panel: panel["title"]
)
def test_a_panel_about_gpus_has_data_where_an_exporter_tells_dcgms_names(seen: Seen, panel: dict[str, object]) -> None:
    targets = panel["targets"]
    assert isinstance(targets, list)
    for target in targets:
        query = target["expr"].replace("$gpu", ".+")
        if "1000" in query:  # needs pictures as well; that it can be read is all that is asked
            seen.prometheus.query(query)
        else:
            eventually(partial(seen.prometheus.query, query), WITHIN_S, 0.5, f"a number for {query}")
