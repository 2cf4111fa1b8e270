"""A saturated engine: its queue full all the time, /health answered after up to half a minute. Busy is not hung.

Here for some seconds, with everything a tenth as long; tests/nightly/test_saturated_engine.py does it for the promised ten minutes.
"""

import base64
import io
import itertools
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml
from PIL import Image

from manyeyes.devcluster.cluster import LocalCluster, local_cluster
from manyeyes.devcluster.eventually import eventually
from manyeyes.simulator import profile
from tests.integration.documents import document
from tests.integration.membership import engines, rotation, sentences

PLACES = 16
"""Requests that the gateway gives it at a time."""
USERS = 40


@dataclass(frozen=True)
class Saturation:
    """How long, and how slow /health is; `settings` are the controller's."""

    lasts_s: float
    health_ms: int
    """What each request in rendering adds to the answer of /health."""
    slowest_health_s: float
    """At least so slow it must have been: far above hung_after_s. vLLM's is reported at 30 to 40 s."""
    settings: dict[str, Any] = field(default_factory=dict)


A_TENTH = Saturation(6, 200, 1, {"hung_after_s": 0.7, "probe_interval_s": 0.25})


def start_saturable(running: LocalCluster, name: str, health_ms: int) -> None:
    """An emulator that prepares two pictures a second, and whose /health waits for them."""
    saturable = yaml.safe_load((profile.PROFILE_FOLDER / "rtx4090-qwen3-vl-4b-fp8.yaml").read_text())
    saturable |= {"preprocess_item_ms": 500.0, "health_ms": float(health_ms)}
    file = running.folder / "saturable.yaml"
    file.write_text(yaml.safe_dump(saturable))
    flags = ["--host=127.0.0.1", f"--port={running.ports[name]}", "--served-model-name", "big", "auto"]
    flags += [f"--profile={file}", f"--max-num-queued-reqs={PLACES}", "--start-seconds=0"]
    flags.append("--enable-server-load-tracking")
    running.start(name, [sys.executable, "-m", "manyeyes.emulator", *flags])


def picture(number: int) -> str:
    """Another one each time, so that no cache helps."""
    file = io.BytesIO()
    Image.new("RGB", (256, 256), (number % 256, number // 256 % 256, 77)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


class Users:
    """Ask about one picture after the other, and stream the answers, until told to stop."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.ends: Counter[str] = Counter()
        self.numbers = itertools.count()
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self._one) for _ in range(USERS)]

    def __enter__(self) -> "Users":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def _one(self) -> None:
        with httpx.Client(timeout=120) as client:
            while not self.stop.is_set():
                content = [
                    {"type": "image_url", "image_url": {"url": picture(next(self.numbers))}},
                    {"type": "text", "text": "What is this?"},
                ]
                body = {"model": "big", "messages": [{"role": "user", "content": content}], "max_tokens": 8}
                try:
                    reply = client.post(f"{self.url}/v1/chat/completions", json=body)
                    self.ends[str(reply.status_code)] += 1
                    if reply.status_code == 429:  # full, as it should be here
                        self.stop.wait(0.5)
                except httpx.HTTPError as error:
                    self.ends[type(error).__name__] += 1


def health_s(running: LocalCluster) -> float:
    began_s = time.monotonic()
    httpx.get(f"http://127.0.0.1:{running.ports['late-0']}/health", timeout=120).raise_for_status()
    return time.monotonic() - began_s


def test_a_saturated_engine_is_never_taken_out(tmp_path: Path) -> None:
    stays_in_rotation(tmp_path, A_TENTH)


def stays_in_rotation(folder: Path, saturation: Saturation) -> str:
    """Runs it, and returns its figures in a sentence."""
    limited = {"big": {"max_in_flight": PLACES}}
    with local_cluster(
        folder, document({"big": ["late-0", "late-1"]}, limited, controller=saturation.settings)
    ) as running:
        start_saturable(running, "late-0", saturation.health_ms)
        # A second engine, so that nothing keeps the first one in but its own signs of life.
        start_saturable(running, "late-1", saturation.health_ms)
        eventually(lambda: rotation(running) == {"late-0", "late-1"}, 30)
        with Users(running.url) as people:
            health: list[float] = []
            looks, in_flight, hidden = 0, [0], [0]
            until_s = time.monotonic() + saturation.lasts_s
            probe = threading.Thread(target=lambda: health.append(health_s(running)))
            while time.monotonic() < until_s:
                if not probe.is_alive():
                    probe = threading.Thread(target=lambda: health.append(health_s(running)))
                    probe.start()
                assert rotation(running) == {"late-0", "late-1"}, sentences(running)
                shown = engines(running)["late-0"]
                assert shown["state"] in ("up", "suspect")
                looks += 1
                in_flight.append(shown["in_flight"] or 0)
                hidden.append(shown["hidden_queue"] or 0)
                time.sleep(0.25)
        probe.join()
        said = sentences(running)
        figures = (
            f"{saturation.lasts_s:.0f} s: in rotation at {looks} of {looks} looks; in flight {max(in_flight)} (most); "
            f"hidden queue {max(hidden)} (most); /health {max(health):.1f} s (slowest of {len(health)}); "
            f"answers {dict(people.ends)}; suspect {sum('is suspect' in one for one in said)} times, "
            f"down {sum('is down' in one for one in said)} times (emulated)"
        )
        assert not [one for one in said if "is down" in one]
        assert max(health) >= saturation.slowest_health_s
        assert max(hidden) >= 3
        return figures
