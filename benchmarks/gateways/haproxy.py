"""HAProxy from Debian: leastconn, and its own stick table for those clients that send a session header."""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gateways.gateway import BenchmarkedGateway, GatewaySetting, command
from benchmarks.install_competitors import from_debian

MANUAL = "https://docs.haproxy.org/3.2/configuration.html"


def _version() -> str:
    done = subprocess.run([from_debian("haproxy"), "-v"], capture_output=True, text=True, check=True)
    found = re.search(r"version (\S+)", done.stdout)
    return found.group(1) if found else done.stdout.splitlines()[0]


def _command(folder: Path, port: int, engines: Sequence[str]) -> list[str]:
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


GATEWAY = BenchmarkedGateway(
    name="HAProxy leastconn",
    product="HAProxy",
    version=_version,
    run=command(_command),
    headers=("X-Session-ID",),
    settings=(
        GatewaySetting("balance leastconn", "the manual's choice for long requests", f"{MANUAL}#4-balance"),
        GatewaySetting(
            "option http-no-delay",
            "the manual's setting for interactive answers; without it chunks came in bundles, 200 ms late",
            f"{MANUAL}#4-option%20http-no-delay",
        ),
        GatewaySetting("option httpchk GET /health", "vLLM's health path", f"{MANUAL}#4-option%20httpchk"),
        GatewaySetting(
            "stick on req.hdr(X-Session-ID), table of 100k for 2 h",
            "without the header it does nothing; with it, HAProxy has stickiness too",
            f"{MANUAL}#4-stick%20on",
        ),
        GatewaySetting("timeouts 600 s, as many threads as cores (default)", "no long answer is cut", MANUAL),
    ),
)
