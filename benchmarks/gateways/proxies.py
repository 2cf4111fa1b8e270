"""Proxies of the comparison: nginx as in vLLM's documentation (with this gateway's binary), HAProxy, ManyEyes, and no gateway."""

import contextlib
import re
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from benchmarks.gateways.gateway import (
    MODEL,
    BenchmarkedGateway,
    GatewaySetting,
    NotInstalled,
    RunningGateway,
    answers,
    command,
    from_debian,
)
from loadtest.host_info import start_process_group
from loadtest.scaling_report.backends import wait_until_healthy
from manyeyes.devcluster.cluster import local_cluster, nginx_binary
from manyeyes.devcluster.ports import free_port
from manyeyes.render.nginx.files import workers_for

DOCS = "https://docs.vllm.ai/en/latest/deployment/nginx.html"
IMAGE = "nginx.conf of the nginx:latest image, which the documentation uses"


@cache
def nginx_version() -> str:
    try:
        done = subprocess.run([nginx_binary(), "-v"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotInstalled(f"no nginx 1.30: {error}") from error
    return done.stderr.strip().rpartition("/")[2]


def temporary_paths(folder: Path, prefix: str = "") -> str:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return "\n".join(f"    {kind}_temp_path {folder}/{prefix}{kind};" for kind in kinds)


def nginx_command(folder: Path, file: Path) -> list[str]:
    # When root starts nginx, its workers switch to another user, who may not be allowed to read the folder.
    return [nginx_binary(), "-p", str(folder), "-c", str(file), "-g", "daemon off; user root;"]


def _nginx_configuration(folder: Path, port: int, engines: Sequence[str]) -> str:
    servers = "\n".join(f"        server {engine} max_fails=3 fail_timeout=10000s;" for engine in engines)
    return f"""\
worker_processes auto;
pid {folder}/nginx.pid;
error_log {folder}/error.log notice;
events {{
    worker_connections 1024;
}}
http {{
    access_log {folder}/access.log;
    sendfile on;
    keepalive_timeout 65;
{temporary_paths(folder)}
    upstream backend {{
        least_conn;
{servers}
    }}
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 512m;
        location / {{
            proxy_pass http://backend;
            proxy_set_header Host $host;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
        }}
    }}
}}
"""


def _nginx_command(folder: Path, port: int, engines: Sequence[str]) -> list[str]:
    file = folder / "nginx.conf"
    file.write_text(_nginx_configuration(folder, port, engines))
    return nginx_command(folder, file)


NGINX_DOCS = BenchmarkedGateway(
    name="Nginx as in vLLM's docs",
    product="Nginx",
    version=nginx_version,
    run=command(_nginx_command),
    settings=(
        GatewaySetting(
            "least_conn; max_fails=3 fail_timeout=10000s; no zone; the four proxy headers", "as documented", DOCS
        ),
        GatewaySetting(
            "worker_processes auto, keepalive_timeout 65, sendfile, access log on", "as in the image", IMAGE
        ),
        GatewaySetting(
            "client_max_body_size 512m", "our choice: with the default of 1 MB, requests with images get 413", DOCS
        ),
        GatewaySetting(
            "the nginx binary of manyeyes/devcluster/fetch/nginx",
            "the same as for this gateway",
            "manyeyes/devcluster/fetch/nginx",
        ),
    ),
)


MANUAL = "https://docs.haproxy.org/3.2/configuration.html"


def _haproxy_version() -> str:
    done = subprocess.run([from_debian("haproxy"), "-v"], capture_output=True, text=True, check=True)
    match = re.search(r"version (\S+)", done.stdout)
    return match.group(1) if match else done.stdout.splitlines()[0]


def _haproxy_command(folder: Path, port: int, engines: Sequence[str]) -> list[str]:
    servers = "\n".join(f"    server engine{n} {engine} check" for n, engine in enumerate(engines))
    file = folder / "haproxy.cfg"
    file.write_text(f"""\
defaults
    mode http
    option http-no-delay
    timeout connect 5s
    timeout client 600s
    timeout server 600s
frontend gateway
    bind 127.0.0.1:{port}
    default_backend engines
backend engines
    balance leastconn
    option httpchk GET /health
    stick-table type string len 64 size 100k expire 2h
    stick on req.hdr(X-Session-ID)
{servers}
""")
    return [str(from_debian("haproxy")), "-db", "-f", str(file)]


HAPROXY = BenchmarkedGateway(
    name="HAProxy leastconn",
    product="HAProxy",
    version=_haproxy_version,
    run=command(_haproxy_command),
    headers=("X-Session-ID",),
    settings=(
        GatewaySetting("balance leastconn", "the manual's choice for long requests", f"{MANUAL}#4-balance"),
        GatewaySetting(
            "option http-no-delay",
            "the manual's setting for interactive answers; without it chunks arrived in groups, 200 ms late",
            f"{MANUAL}#4-option%20http-no-delay",
        ),
        GatewaySetting("option httpchk GET /health", "vLLM's health path", f"{MANUAL}#4-option%20httpchk"),
        GatewaySetting(
            "stick on req.hdr(X-Session-ID), table of 100k for 2 h",
            "session affinity by header; without the header it has no effect",
            f"{MANUAL}#4-stick%20on",
        ),
        GatewaySetting("timeouts 600 s, as many threads as cores (default)", "no long answer is cut off", MANUAL),
    ),
)


@contextlib.contextmanager
def _run_manyeyes(folder: Path, engines: Sequence[str]) -> Iterator[RunningGateway]:
    addresses = {f"gpu-{number}": address for number, address in enumerate(engines)}
    document = {
        "pools": [{"name": MODEL, "model": "Qwen/Qwen3-VL-4B-Instruct-FP8"}],
        "engines": [{"name": name, "pool": MODEL} for name in addresses],
        "controller": {},
        # The number that `make up` sets for so many engines. Engines with an address, as here, are not counted.
        "gateway": {"workers": workers_for(len(engines))},
    }
    with local_cluster(folder, document, addresses=addresses, prints_logs=False) as running:
        address = f"127.0.0.1:{running.ports['gateway']}"
        answers(address, lambda: running.processes["nginx"].poll() is None, folder / "controller.log")
        running.answers_from(MODEL, set(addresses))
        yield RunningGateway((address,), {part: running.processes[part].pid for part in ("nginx", "controller")})


MANYEYES = BenchmarkedGateway(
    name="ManyEyes",
    product="ManyEyes",
    version=lambda: f"this commit, nginx {nginx_version()}",
    run=_run_manyeyes,
    settings=(
        GatewaySetting("every setting at its default", "what a user gets from `make up`", "config/"),
        GatewaySetting(
            "CPU and memory are nginx and the controller together",
            "requests do not pass the controller, but it reads the access log",
            "docs/architecture.md",
        ),
    ),
)


@contextlib.contextmanager
def _run_direct(folder: Path, engines: Sequence[str]) -> Iterator[RunningGateway]:
    yield RunningGateway(tuple(engines))


DIRECT = BenchmarkedGateway(
    name="no gateway",
    product="none",
    version=lambda: "-",
    run=_run_direct,
    settings=(
        GatewaySetting(
            "conversation number modulo the number of engines chooses the engine",
            "perfect affinity at no cost: the limit for a gateway",
            "benchmarks/gateways/proxies.py",
        ),
    ),
)


@contextlib.contextmanager
def fixed(folder: Path, count: int) -> Iterator[list[str]]:
    """Starts an nginx that answers every chat request with the same 200, on `count` ports: only the gateway causes load."""
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
