"""How this host reaches the gateway: its public address, and the port for the page from inside."""

import json
import ssl
import urllib.error
import urllib.request
from typing import Any

from manyeyes.cli import certificate
from manyeyes.cli.compose import Compose
from manyeyes.cli.process import CommandFailed
from manyeyes.config.cluster import Cluster

INSIDE = "http://127.0.0.1:8079"
"""The page's port in the gateway's container; it asks for no key."""
HEALTHZ_TIMEOUT_S = 5
ANSWER_TIMEOUT_S = 120


def address(cluster: Cluster) -> str:
    """http://host:port of the gateway, or https, as this host reaches it."""
    host = cluster.gateway.host
    near = host.is_loopback or host.is_unspecified
    scheme = "https" if cluster.gateway.tls else "http"
    return f"{scheme}://{'localhost' if near else host}:{cluster.gateway.port}"


def healthz(cluster: Cluster) -> dict[str, Any]:
    """The gateway's /healthz, whatever its status; empty while nothing listens."""
    try:
        with _opener(cluster).open(f"{address(cluster)}/healthz", timeout=HEALTHZ_TIMEOUT_S) as reply:
            return dict(json.load(reply))
    except urllib.error.HTTPError as error:
        try:
            return dict(json.load(error))
        except ValueError:
            return {}
    except (OSError, ValueError):
        return {}


def send_chat(compose: Compose, body: str) -> tuple[int, str, float, str]:
    """(status, engine, seconds, what it said) for one chat request from inside, where no key is wanted.

    The status is 0 when nothing answered.
    """
    curl = ["curl", "-sS", "--max-time", str(ANSWER_TIMEOUT_S), "-H", "Content-Type: application/json", "-d", body]
    told = ["-w", "\\n%{http_code}|%header{x-manyeyes-engine}|%{time_total}", f"{INSIDE}/v1/chat/completions"]
    try:
        said = compose("exec", "-T", "gateway", *curl, *told, timeout_s=ANSWER_TIMEOUT_S + 30)
    except CommandFailed as error:
        return 0, "", 0.0, error.last_line
    text, _, last = said.rstrip().rpartition("\n")
    status, engine, seconds = last.split("|")
    return int(status), engine, float(seconds), text


def _opener(cluster: Cluster) -> urllib.request.OpenerDirector:
    """Heeds no proxy. With TLS it trusts exactly the file in the secrets folder, whatever names that is for."""
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if trusted := certificate.path(cluster):
        context = ssl.create_default_context(cafile=str(trusted))
        context.check_hostname = False
        context.verify_flags = ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
        handlers.append(urllib.request.HTTPSHandler(context=context))
    return urllib.request.build_opener(*handlers)
