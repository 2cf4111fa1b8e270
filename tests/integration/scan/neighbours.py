"""Prints how much longer small chats take while another client sends the most expensive bodies to the same gateway.

    .venv/bin/python -m tests.integration.scan.neighbours [--pairs 10] [--seconds 10] [--megabytes 1.5] [--keys]

Real nginx and controller with two emulated engines. Blocks with and without the hostile client alternate, and each pair
gives one difference. The hostile client, a separate process, sends the bodies of worst_bodies.py of at most
128 KB, in turn. With --keys both clients have an API key, so the gateway inserts a cache salt into every
body. Exits with 1 if a small chat failed or the median difference of the 99th percentiles is over LIMIT_MS.
"""

import argparse
import asyncio
import hashlib
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles

import httpx
import orjson

from manyeyes.config.credentials import ApiKeys
from manyeyes.devcluster.cluster import local_cluster
from tests.integration.documents import document
from tests.integration.scan.worst_bodies import bodies

LIMIT_MS = 20
CHATS_AT_ONCE = 4
PAUSE_S = 0.02
LARGEST_BYTES = 128 * 1024
"""Larger bodies cost less for each byte."""
SMALL = orjson.dumps({"model": "big", "max_tokens": 1, "messages": [{"role": "user", "content": "word " * 100}]})
KEYS = {"small": "sk-small-00000000000000000000", "hostile": "sk-hostile-000000000000000000"}


def client(port: int, source: str, key: str) -> httpx.AsyncClient:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    transport = httpx.AsyncHTTPTransport(local_address=source)
    return httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}/v1", headers=headers, transport=transport, timeout=60, trust_env=False
    )


async def chat(port: int, seconds: float, key: str) -> tuple[list[float], Counter[int]]:
    """Times in ms, and the numbers of answers by status."""
    times: list[float] = []
    statuses: Counter[int] = Counter()
    end = time.monotonic() + seconds

    async def user(own: httpx.AsyncClient) -> None:
        while time.monotonic() < end:
            began = time.perf_counter()
            reply = await own.post("/chat/completions", content=SMALL)
            times.append((time.perf_counter() - began) * 1000)
            statuses[reply.status_code] += 1
            await asyncio.sleep(PAUSE_S)

    async with client(port, "127.0.0.2", key) as own:
        await asyncio.gather(*(user(own) for _ in range(CHATS_AT_ONCE)))
    return times, statuses


async def attack(port: int, sent: list[bytes], bytes_per_s: float, key: str) -> None:
    """Sends the bodies in turn, until standard input closes. Prints what was sent and the numbers of answers
    by status."""
    statuses: Counter[int] = Counter()
    pending: set[asyncio.Task[None]] = set()
    print("ready", flush=True)
    total, count, began = 0, 0, time.monotonic()
    over = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    async with client(port, "127.0.0.3", key) as own:

        async def send(body: bytes) -> None:
            statuses[(await own.post("/chat/completions", content=body)).status_code] += 1

        while not over.done():
            body = sent[count % len(sent)]
            count += 1
            pending.add(task := asyncio.create_task(send(body)))
            task.add_done_callback(pending.discard)
            total += len(body)
            await asyncio.sleep(max(0.0, began + total / bytes_per_s - time.monotonic()))
        seconds = time.monotonic() - began
        await asyncio.gather(*pending)
    print(f"   {total / seconds / 1e6:.2f} MB/s of {len(sent)} kinds of bodies, answers: {dict(statuses)}", flush=True)


def p(times: Sequence[float], percent: int) -> float:
    return quantiles(times, n=100)[percent - 1]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--pairs", type=int, default=10)
    options.add_argument("--seconds", type=float, default=10)
    options.add_argument("--megabytes", type=float, default=1.5)
    options.add_argument("--keys", action="store_true")
    options.add_argument("--attack", type=int, help=argparse.SUPPRESS)
    options.add_argument("--bodies", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    rate, keys = given.megabytes * 1e6, KEYS if given.keys else {"small": "", "hostile": ""}
    if given.attack:
        hostile_bodies = [file.read_bytes() for file in sorted(given.bodies.iterdir())]
        asyncio.run(attack(given.attack, hostile_bodies, rate, keys["hostile"]))
        return 0
    added: list[float] = []
    failed = 0
    hashes = [{"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest()} for name, key in KEYS.items()]
    written = ApiKeys.model_validate({"keys": hashes})
    with (
        tempfile.TemporaryDirectory() as folder,
        local_cluster(Path(folder), document({"big": ["big-0", "big-1"]}), written if given.keys else None,
                      prints_logs=False) as running,
    ):  # fmt: skip
        (sent := Path(folder) / "bodies").mkdir()
        for number, (_, body) in enumerate(bodies()):
            if len(body) <= LARGEST_BYTES:
                (sent / f"{number:03}").write_bytes(body.replace(b'"model":"m"', b'"model":"big"', 1))
        running.all_up({"big-0", "big-1"})
        port = running.ports["gateway"]
        command = [sys.executable, "-m", "tests.integration.scan.neighbours", f"--attack={port}"]
        command += [f"--bodies={sent}", f"--megabytes={given.megabytes}", *(["--keys"] if given.keys else [])]
        asyncio.run(chat(port, 2, keys["small"]))
        for pair in range(given.pairs):
            alone, answers = asyncio.run(chat(port, given.seconds, keys["small"]))
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as hostile:
                assert hostile.stdin
                assert hostile.stdout
                hostile.stdout.readline()
                beside, more = asyncio.run(chat(port, given.seconds, keys["small"]))
                hostile.stdin.close()
                print(hostile.stdout.read(), end="")
            answers += more
            failed += sum(count for status, count in answers.items() if status != 200)
            added.append(p(beside, 99) - p(alone, 99))
            print(
                f"{pair + 1}: alone p50 {p(alone, 50):.1f} p99 {p(alone, 99):.1f} ms, with the hostile client "
                f"p50 {p(beside, 50):.1f} p99 {p(beside, 99):.1f} ms, {dict(answers)}",
                flush=True,
            )
        running.all_up({"big-0", "big-1"})
    print(f"added to p99: median {median(added):.1f} ms ({min(added):.1f} to {max(added):.1f}), failed: {failed}")
    return 1 if failed or median(added) > LIMIT_MS else 0


if __name__ == "__main__":
    sys.exit(main())
