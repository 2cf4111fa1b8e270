"""What stands behind the gateways where only they are to work: a backend that costs nothing."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from benchmarks.gateways.gateway import MODEL
from benchmarks.gateways.proxies import nginx_command, temporary_paths
from loadtest.host_info import start_process_group
from loadtest.scaling_report.process_backend import wait_until_healthy
from manyeyes.devcluster.cluster import free_port


@contextlib.contextmanager
def fixed(folder: Path, count: int) -> Iterator[list[str]]:
    """An nginx that answers every chat request with the same 200, on `count` ports: only the gateway in front works."""
    ports = [free_port() for _ in range(count)]
    listens = "\n".join(f"        listen 127.0.0.1:{port};" for port in ports)
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
{temporary_paths(folder, "fixed-")}
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
    with start_process_group(nginx_command(folder, file), folder / "fixed.log"):
        addresses = [f"127.0.0.1:{port}" for port in ports]
        wait_until_healthy(addresses, folder / "fixed.log")
        yield addresses
