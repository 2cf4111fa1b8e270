"""Nginx as vLLM's documentation sets it up, on the same nginx binary as this project's gateway."""

import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from benchmarks.gateways.gateway import BenchmarkedGateway, GatewaySetting, command
from benchmarks.install_competitors import NotInstalled
from manyeyes.devcluster.cluster import nginx_binary

DOCS = "https://docs.vllm.ai/en/latest/deployment/nginx.html"
IMAGE = "nginx.conf of the nginx:latest image, which the page builds on"


@cache
def nginx_version() -> str:
    try:
        done = subprocess.run([nginx_binary(), "-v"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotInstalled(f"no nginx 1.30: {error}") from error
    return done.stderr.strip().rpartition("/")[2]


def _configuration(folder: Path, port: int, engines: Sequence[str]) -> str:
    servers = "\n".join(f"        server {engine} max_fails=3 fail_timeout=10000s;" for engine in engines)
    temporary = "\n".join(
        f"    {kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
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
{temporary}
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


def _command(folder: Path, port: int, engines: Sequence[str]) -> list[str]:
    file = folder / "nginx.conf"
    file.write_text(_configuration(folder, port, engines))
    # Started by root, nginx's workers take another user, who may not enter the folder.
    return [nginx_binary(), "-p", str(folder), "-c", str(file), "-g", "daemon off; user root;"]


GATEWAY = BenchmarkedGateway(
    name="Nginx as in vLLM's docs",
    product="Nginx",
    version=nginx_version,
    run=command(_command),
    settings=(
        GatewaySetting(
            "least_conn; max_fails=3 fail_timeout=10000s; no zone; the four proxy headers", "the page's", DOCS
        ),
        GatewaySetting("worker_processes auto, keepalive_timeout 65, sendfile, access log on", "the image's", IMAGE),
        GatewaySetting("client_max_body_size 512m", "ours: with the default of 1 MB, pictures get 413", DOCS),
        GatewaySetting(
            "the nginx binary of manyeyes/devcluster/fetch/nginx",
            "the same as this gateway's",
            "manyeyes/devcluster/fetch/nginx",
        ),
    ),
)
