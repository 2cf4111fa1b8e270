"""Many minimal engines in one process, at almost no cost: `python -m benchmarks.many_engines FIRST_PORT COUNT`.

Each answers /health, /load, a warm-up request with an image, and /metrics with about 100 KB, as large as vLLM 0.32's for one model.
"""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from typing import cast

import uvloop

from loadtest.result_files import ROOT

LINES = 900
"""Number of histogram lines that are not needed, around the lines that the controller reads."""


def metrics() -> bytes:
    labels = '{engine="0",model_name="Qwen/Qwen3-VL-8B-Instruct-FP8"'
    noise = [f'vllm:request_{part}_seconds_bucket{labels},le="{part / 10}"}} {part * 1.5}' for part in range(LINES)]
    required = [
        "num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "prompt_tokens_total",
        "generation_tokens_total", "num_preemptions_total", "iteration_tokens_total_count",
        "request_queue_time_seconds_sum", "request_queue_time_seconds_count",
    ]  # fmt: skip
    sleep = [f'vllm:engine_sleep_state{labels},sleep_state="awake"}} 1.0']
    step = LINES // len(required)
    rows = ["# HELP vllm:x about", *sleep]
    for number, name in enumerate(required):
        rows += [f"# TYPE vllm:{name} gauge", f"vllm:{name}{labels}}} 0.0", *noise[number * step : (number + 1) * step]]
    return ("\n".join(rows) + "\n").encode()


def http(body: bytes) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


ANSWERS = {
    b"/health": http(b""),
    b"/load": http(b'{"server_load":0}'),
    b"/metrics": http(metrics()),
    b"/v1/chat/completions": http(b'{"choices":[{"finish_reason":"length"}]}'),
}
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


class StubEngine(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(ANSWERS.get(data.split(b" ", 2)[1], NOT_FOUND))


async def serve(first_port: int, count: int) -> None:
    loop = asyncio.get_running_loop()
    for port in range(first_port, first_port + count):
        await loop.create_server(StubEngine, "127.0.0.1", port)
    print("listening", flush=True)
    await asyncio.Event().wait()


@contextlib.contextmanager
def many(first_port: int, count: int) -> Iterator[None]:
    command = [sys.executable, "-m", "benchmarks.many_engines", str(first_port), str(count)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            process.stdout.readline()
            yield
        finally:
            process.kill()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
