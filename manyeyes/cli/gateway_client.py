"""Sends requests to the gateway, at its public address or from inside its container, and to the controller.

Requests to the controller are sent from the gateway's container, so they do not depend on published ports, certificates
or keys.
"""

import contextlib
import json
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from manyeyes.cli import secrets, started_services
from manyeyes.cli.compose import Compose
from manyeyes.cli.process import CommandFailed
from manyeyes.cli.terminal import CliError, print_line, print_warning, step
from manyeyes.config.cluster import Cluster
from manyeyes.config.loader import fingerprint_of_file

URL_IN_GATEWAY = "http://127.0.0.1:8079"
"""The web page's port in the gateway's container."""
SEND_CHAT = (
    'printf "X-ManyEyes-Page-Key: %s" "$(cat /run/secrets/manyeyes/page.key 2>/dev/null)" | '
    'curl -sS --max-time {timeout} -H @- -H "X-ManyEyes-Key: -" -H "Content-Type: application/json" -d "$1" '
    '-w "\\n%{{http_code}}|%header{{x-manyeyes-engine}}|%{{time_total}}" {url}/v1/chat/completions'
)
"""The page's key is read from a file in the container, so that it is not visible in a process list."""
HEALTHZ_TIMEOUT_S = 5
ANSWER_TIMEOUT_S = 120


def address(cluster: Cluster) -> str:
    """Returns the gateway's base URL (http or https), as this host reaches it."""
    host = cluster.gateway.host
    is_local = host.is_loopback or host.is_unspecified
    scheme = "https" if cluster.gateway.tls else "http"
    return f"{scheme}://{'localhost' if is_local else host}:{cluster.gateway.port}"


def healthz(cluster: Cluster) -> dict[str, Any]:
    """Returns the gateway's /healthz, with any status code; empty if the gateway does not answer."""
    with contextlib.suppress(OSError, ValueError):
        try:
            reply = _opener(cluster).open(f"{address(cluster)}/healthz", timeout=HEALTHZ_TIMEOUT_S)
        except urllib.error.HTTPError as error:
            reply = error
        with reply:
            return dict(json.load(reply))
    return {}


def send_chat(compose: Compose, body: str) -> tuple[int, str, float, str]:
    """Sends a chat request from the gateway's container, with the page's key.

    Returns (status, engine, seconds, response body). The status is 0 if there was no response.
    """
    command = SEND_CHAT.format(timeout=ANSWER_TIMEOUT_S, url=URL_IN_GATEWAY)
    try:
        output = compose("exec", "-T", "gateway", "sh", "-c", command, "sh", body, timeout_s=ANSWER_TIMEOUT_S + 30)
    except CommandFailed as error:
        return 0, "", 0.0, error.last_line
    text, _, summary = output.rstrip().rpartition("\n")
    status, engine, seconds = summary.split("|")
    return int(status), engine, float(seconds), text


def _opener(cluster: Cluster) -> urllib.request.OpenerDirector:
    """Uses no proxy. With TLS, trusts only the certificate in the secrets folder, and does not check its host names."""
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if trusted := secrets.certificate_path(cluster):
        context = ssl.create_default_context(cafile=str(trusted))
        context.check_hostname = False
        context.verify_flags = ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
        handlers.append(urllib.request.HTTPSHandler(context=context))
    return urllib.request.build_opener(*handlers)


PORT = 8081
SET_REPLICAS = ("python", "-m", "manyeyes.controller.autoscaling.set_replicas")
TIMEOUT_S = 10
POLL_S = 0.3
APPLY_TIMEOUT_S = 45.0
"""Includes the time for a new certificate, which the gateway checks every ten seconds."""
# The key is read from a file in the container, so that it is not visible in a process list.
POST = (
    'printf "Authorization: Bearer %s" "$(cat /run/secrets/manyeyes/admin.key)" | '
    'curl -sS -m {timeout} -X POST -H @- -H "Content-Type: application/json" -d "$1" {url}'
)


def drain(compose: Compose, cluster: Cluster, engine: str, reason: str) -> dict[str, Any]:
    """Takes an engine out of rotation. Returns {name, state, held, in_flight}. Raises CliError."""
    return _post(compose, cluster, f"/api/engines/{engine}/drain", {"reason": reason})


def resume(compose: Compose, cluster: Cluster, engine: str, reason: str) -> dict[str, Any]:
    """Puts an engine back into rotation. Raises CliError."""
    return _post(compose, cluster, f"/api/engines/{engine}/resume", {"reason": reason})


def controller_configuration(compose: Compose, cluster: Cluster) -> dict[str, Any]:
    """Returns the controller's /api/configuration; empty if it does not answer."""
    try:
        output = _run_in_gateway(compose, f"curl -sS -m {TIMEOUT_S} {_url(cluster)}/api/configuration", "")
        return dict(json.loads(output))
    except (CommandFailed, TimeoutError, ValueError):
        return {}


def status_and_events(compose: Compose, cluster: Cluster) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Returns the controller's /status and /api/events, in one call. Raises CommandFailed, TimeoutError, ValueError."""
    output = _run_in_gateway(compose, f"curl -fsS -m {TIMEOUT_S} {_url(cluster)}/status {_url(cluster)}/api/events", "")
    status, end = json.JSONDecoder().raw_decode(output)
    events = json.loads(output[end:])
    return dict(status), list(events)


def wait_until_applied(compose: Compose, cluster: Cluster, config: Path) -> None:
    """Waits until controller and gateway have applied the configuration file. Raises CliError if it is rejected."""
    fingerprint, started_s = fingerprint_of_file(config), time.monotonic()
    with step("applying the configuration") as current:
        while not _is_applied(configuration := controller_configuration(compose, cluster), fingerprint):
            if time.monotonic() - started_s > APPLY_TIMEOUT_S:
                problem = (
                    configuration.get("gateway", {}).get("problem")
                    or "`docker compose logs controller` shows the reason."
                )
                raise CliError(f"the configuration was not applied within {APPLY_TIMEOUT_S:.0f} s: {problem}")
            time.sleep(POLL_S)
        current.outcome = "configuration applied"


def _is_applied(configuration: dict[str, Any], fingerprint: str) -> bool:
    if configuration and configuration["validated"] == fingerprint and configuration["refused"]:
        raise CliError(
            "the controller rejected the configuration; the previous configuration stays active.",
            *configuration["refused"],
        )
    gateway = configuration.get("gateway", {})
    return (
        bool(configuration)
        and configuration["applied"]["digest"] == fingerprint
        and gateway["desired"] == gateway["active"]
    )


def print_pending_changes(compose: Compose, cluster: Cluster) -> None:
    """Prints the changes in the file that an operator must apply."""
    for change in controller_configuration(compose, cluster).get("needs", []):
        print_warning(change)


def scale(config: Path, engines: str, pool: str) -> int:
    """Runs manyeyes/controller/autoscaling/set_replicas.py. Returns its exit code: 0 success, 1 timeout, 2 rejected.
    Raises CliError."""
    compose = Compose(started_services.configuration(config).name)
    compose.require_running()
    try:
        compose("exec", "-T", "controller", *SET_REPLICAS, engines, "--pool", pool, on_line=print_line)
    except CommandFailed as error:
        return error.status
    return 0


def _post(compose: Compose, cluster: Cluster, path: str, body: dict[str, str]) -> dict[str, Any]:
    command = POST.format(timeout=TIMEOUT_S, url=f"{_url(cluster)}{path}")
    try:
        reply = dict(json.loads(_run_in_gateway(compose, command, json.dumps(body))))
    except CommandFailed as error:
        raise CliError(f"the controller is not reachable: {error.last_line}. Is the cluster up?") from error
    except (TimeoutError, ValueError) as error:
        raise CliError(f"the controller does not answer: {error}") from error
    if "error" in reply:
        raise CliError(str(reply["error"]["message"]))
    return reply


def _run_in_gateway(compose: Compose, command: str, argument: str) -> str:
    return compose("exec", "-T", "gateway", "sh", "-c", command, "sh", argument, timeout_s=TIMEOUT_S + 20)


def _url(cluster: Cluster) -> str:
    return f"http://{cluster.network.controller_ip}:{PORT}"
