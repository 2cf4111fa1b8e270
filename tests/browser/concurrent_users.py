"""Many people chat at once while others use the page: how long an event of the page takes, and whether answers get mixed up.

python -m tests.browser.concurrent_users --people 50 --rounds 3

Each person is a visit of its own in Gradio's own protocol (a queue to join, a stream of events to read), through the real
nginx, against emulated engines; what is timed is what a click costs: the estimate of an attached picture, and the first
piece of a drawn answer. Exit code 1 when an answer reached another visit than the one that asked.
"""

import argparse
import asyncio
import json
import secrets
import sys
import tempfile
import time
from pathlib import Path
from statistics import quantiles
from typing import Any

import httpx

from tests.browser.webui_cluster import page_stand

FLAGS = ("--start-seconds=0", "--ttft-ms=120", "--image-ms=30", "--tpot-ms=25")
SAMPLING = ("qwen3-vl-8b", "", 0.7, 0.8, 1024, "", 1280, 2, 16)
PAUSE_S = 10.0
"""Between a person's questions; people begin one after the other within it."""


class Page:
    """The page's events by what they are: (index, inputs)."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.components = {one["id"]: one for one in config["components"]}

    def event(self, elem_id: str, kind: str) -> dict[str, Any]:
        """The first event of that kind on the component with that id."""
        own = next(one["id"] for one in self.config["components"] if one["props"].get("elem_id") == elem_id)
        return next(
            dict(one) for one in self.config["dependencies"] if [own, kind] in [list(t) for t in one["targets"]]
        )

    def call(self, elem_id: str, kind: str, visit: str, data: list[Any], event_data: Any = None) -> dict[str, Any]:
        """The body with which the page's own script calls that event."""
        index = self.event(elem_id, kind)["id"]
        return {"data": data, "fn_index": index, "session_hash": visit, "event_data": event_data}


async def person(
    client: httpx.AsyncClient, page: Page, number: int, of: int, rounds: int, told: dict[str, list[float]]
) -> int:
    """Asks `rounds` times with a text of `number` words; how many answers were somebody else's."""
    wrong = 0
    for nth in range(rounds):
        visit = secrets.token_hex(5)
        await asyncio.sleep(PAUSE_S if nth else PAUSE_S * number / of)
        text = " ".join(["word"] * number)
        begun_s = time.monotonic()
        await estimate(client, page, visit, text)
        told["event"].append(time.monotonic() - begun_s)
        shown = await ask(client, page, visit, text, told["first piece"])
        plural = "word" if number == 1 else "words"
        wrong += f"Your text has {number} {plural}." not in shown
    return wrong


async def estimate(client: httpx.AsyncClient, page: Page, visit: str, text: str) -> None:
    body = page.call("question", "change", visit, [{"text": text, "files": []}, "qwen3-vl-8b", 1280, 2, 16])
    (await client.post("gradio_api/run/predict", json=body)).raise_for_status()


async def ask(client: httpx.AsyncClient, page: Page, visit: str, text: str, first: list[float]) -> str:
    """The text that the visit was shown at last."""
    body = page.call("question", "submit", visit, [{"text": text, "files": []}, [], *SAMPLING])
    begun_s = time.monotonic()
    (await client.post("gradio_api/queue/join", json=body)).raise_for_status()
    pieces: list[str] = []
    async with client.stream("GET", "gradio_api/queue/data", params={"session_hash": visit}) as stream:
        async for line in stream.aiter_lines():
            if not line.startswith("data:"):
                continue
            message = json.loads(line[5:])
            if message["msg"] == "process_generating" and not pieces:
                first.append(time.monotonic() - begun_s)
            if message["msg"] in ("process_generating", "process_completed"):
                pieces.append(json.dumps(message.get("output", {}), ensure_ascii=False))
            if message["msg"] in ("process_completed", "close_stream"):
                break
    return joined(pieces)


def joined(pieces: list[str]) -> str:
    """All that was drawn, with the pieces that were appended put together."""
    drawn = ""
    for piece in pieces:
        for change in _changes(json.loads(piece)):
            drawn = drawn + change[1] if change[0] == "append" else change[1]
    return drawn


def _changes(output: dict[str, Any]) -> list[tuple[str, str]]:
    """(append or replace, text) for the answer's own text."""
    found: list[tuple[str, str]] = []
    data = output.get("data") or []
    chat = data[0] if data else None
    if not isinstance(chat, list):
        return found
    if chat and isinstance(chat[0], list) and len(chat[0]) == 3 and isinstance(chat[0][0], str):
        for action, path, value in chat:  # a difference: [action, path, value]
            if isinstance(value, str) and path[-4:-2] == [1, "content"] and path[-2] == 0:
                found.append(("append" if action == "append" else "replace", value))
    elif chat and isinstance(chat[-1], dict) and chat[-1].get("role") == "assistant":
        found.append(("replace", str(chat[-1]["content"][0].get("text", ""))))
    return found


async def crowd(url: str, people: int, rounds: int) -> tuple[dict[str, list[float]], int, float]:
    told: dict[str, list[float]] = {"event": [], "first piece": []}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=f"{url}/", timeout=120, limits=limits, trust_env=False) as client:
        page = Page((await client.get("config")).json())
        begun_s = time.monotonic()
        wrong = await asyncio.gather(*(person(client, page, one, people, rounds, told) for one in range(1, people + 1)))
    return told, sum(wrong), time.monotonic() - begun_s


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--url", default="", help="a running page; without it one is started")
    asked = parser.parse_args()
    if asked.url:
        return report(asked, *asyncio.run(crowd(asked.url, asked.people, asked.rounds)))
    with tempfile.TemporaryDirectory() as folder, page_stand(Path(folder), FLAGS) as running:
        return report(asked, *asyncio.run(crowd(running.url, asked.people, asked.rounds)))


def report(asked: argparse.Namespace, told: dict[str, list[float]], wrong: int, took_s: float) -> int:
    print(f"{asked.people} people, {asked.rounds} questions each, {took_s:.1f} s, emulated engines")
    for name, seconds in told.items():
        cuts = quantiles(seconds, n=100)
        print(f"{name}: p50 {1000 * cuts[49]:.0f} ms, p95 {1000 * cuts[94]:.0f} ms, most {1000 * max(seconds):.0f} ms")
    print(f"answers of somebody else: {wrong}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
