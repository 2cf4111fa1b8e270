"""What stands behind the gateways: emulated engines with cold caches, or a backend that costs nothing."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from benchmarks.gateways.gateway import MODEL
from loadtest.host_info import start_process_group
from loadtest.http_client import fetch
from loadtest.result_files import ROOT
from manyeyes.devcluster.cluster import free_port, nginx_binary


@contextlib.contextmanager
def emulated(folder: Path, count: int, flags: Sequence[str] = ()) -> Iterator[list[str]]:
    """`count` new engines; yields their addresses when all are healthy."""
    with contextlib.ExitStack() as stack:
        addresses = []
        for number in range(count):
            port = free_port()
            command = [
                sys.executable,
                "-m",
                "manyeyes.emulator",
                "--host=127.0.0.1",
                f"--port={port}",
                f"--served-model-name={MODEL}",
                "--start-seconds=0",
                *flags,
            ]
            # Routers keep idle connections for longer than vLLM's 5 s; as in this project's own engines.
            environment = {"VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "75"}
            stack.enter_context(start_process_group(command, folder / f"engine-{number}.log", environment, ROOT))
            addresses.append(f"127.0.0.1:{port}")
        _healthy(addresses, folder / "engine-0.log")
        yield addresses


@cache
def known_flags() -> str:
    """The emulator's help: which flags this checkout's has."""
    command = [sys.executable, "-m", "manyeyes.emulator", "--help"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@contextlib.contextmanager
def fixed(folder: Path, count: int) -> Iterator[list[str]]:
    """An nginx that answers every chat request with the same 200, on `count` ports: only the gateway in front works."""
    ports = [free_port() for _ in range(count)]
    listens = "\n".join(f"        listen 127.0.0.1:{port};" for port in ports)
    temporary = "\n".join(
        f"    {kind}_temp_path {folder}/fixed-{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    answer = (
        '{"id":"chatcmpl-fixed","object":"chat.completion","created":1,"model":"MODEL","choices":[{"index":0,"message":'
        '{"role":"assistant","content":"This is always the same answer."},"finish_reason":"stop"}],'
        '"usage":{"prompt_tokens":600,"completion_tokens":8,"total_tokens":608}}'
    ).replace("MODEL", MODEL)
    models = f'{{"object":"list","data":[{{"id":"{MODEL}","object":"model","created":1,"owned_by":"vllm"}}]}}'
    file = folder / "fixed.conf"
    file.write_text(f"""\
worker_processes 1;
pid {folder}/fixed.pid;
error_log {folder}/fixed-error.log;
events {{
    worker_connections 4096;
}}
http {{
    access_log off;
    keepalive_requests 10000000;
    keepalive_timeout 600;
    client_max_body_size 512m;
{temporary}
    default_type application/json;
    server {{
{listens}
        location / {{ return 200 '{answer}'; }}
        location = /health {{ return 200 ''; }}
        location = /v1/models {{ return 200 '{models}'; }}
        location = /version {{ return 200 '{{"version":"0.32.0"}}'; }}
        location = /metrics {{ default_type text/plain; return 200 'vllm:num_requests_running{{engine="0"}} 0\\n'; }}
    }}
}}
""")
    command = [nginx_binary(), "-p", str(folder), "-c", str(file), "-g", "daemon off; user root;"]
    with start_process_group(command, folder / "fixed.log"):
        addresses = [f"127.0.0.1:{port}" for port in ports]
        _healthy(addresses, folder / "fixed.log")
        yield addresses


def _healthy(addresses: Sequence[str], log: Path) -> None:
    deadline = time.monotonic() + 60
    for address in addresses:
        while True:
            try:
                fetch(f"http://{address}/health", timeout_s=5)
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{address} is not healthy: {error}\n{log.read_text()[-2000:]}") from error
                time.sleep(0.05)
