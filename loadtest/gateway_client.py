"""Client for the gateway under test: checks it before a run, lists its eligible engines, and annotates runs."""

import contextlib
import json
import os
import urllib.error
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from loadtest.host_info import Repeating
from loadtest.http_client import bearer, fetch, parse_target
from loadtest.run import console

TIMEOUT_S = 10.0
FIRST_ANSWER_S = 120.0


class GatewayUnusable(Exception):
    """The target cannot be tested. The message says what failed and what to do next."""


@dataclass
class GatewayClient:
    """A gateway's URL and API key. `trusted`: a file with the certificate to trust."""

    url: str
    key: str = ""
    trusted: str = ""

    def __post_init__(self) -> None:
        self.base = parse_target(self.url).base

    def ready(self, model: str) -> str:
        """Returns the model to test: `model`, or the first model that the gateway serves.

        Sends one short request to it. Raises GatewayUnusable if that fails.
        """
        models = self._models()
        if not model and not models:
            raise GatewayUnusable(f"{self.base} serves no model. Set MODEL=.")
        chosen = model or models[0]
        body = {"model": chosen, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
        status, reply = self._request("/v1/chat/completions", body, FIRST_ANSWER_S)
        if status == 404:
            raise GatewayUnusable(
                f"{self.base} has no model {chosen!r}; it has {', '.join(models) or 'none'}. Set MODEL=."
            )
        if status != 200:
            raise GatewayUnusable(
                f"{self.base} answered the test request with {status}: {_error_message(reply)}. See `make status`."
            )
        return chosen

    def _models(self) -> list[str]:
        status, reply = self._request("/v1/models", None, TIMEOUT_S)
        if status in (401, 403):
            raise GatewayUnusable(
                f"{self.base} refuses the key ({status}: {_error_message(reply)}). "
                "Set KEY= to a valid key; `manyeyes key` creates one."
            )
        return [model["id"] for model in reply.get("data", ())] if status == 200 else []

    def up(self) -> set[str]:
        """Names of the eligible engines; empty if the target is not this project's gateway."""
        return {name for pool in self._pools() for name in _engines_up(pool)}

    def up_in(self, pool: str) -> set[str]:
        return {name for candidate in self._pools() if candidate.get("name") == pool for name in _engines_up(candidate)}

    def _pools(self) -> list[dict[str, Any]]:
        try:
            status, reply = self._request("/healthz", None, TIMEOUT_S)
        except GatewayUnusable:
            return []
        return (reply.get("pools") or []) if status in (200, 503) else []

    def _request(self, path: str, body: dict[str, Any] | None, timeout_s: float) -> tuple[int, dict[str, Any]]:
        try:
            raw = fetch(self.base + path, body, bearer(self.key), trusted=self.trusted, timeout_s=timeout_s)
            return 200, _parse_json(raw)
        except urllib.error.HTTPError as error:
            return error.code, _parse_json(error.read())
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise GatewayUnusable(
                f"{self.base} does not answer: {reason}. Check that it runs (`make status`) and that URL= is correct."
            ) from None


class EngineLossWatch(Repeating):
    """Collects the engines that were eligible at the start of the watch and not eligible at least once during it."""

    every_s = 1.0

    def __init__(self, gateway: GatewayClient) -> None:
        super().__init__()
        self.gateway = gateway
        self.names: set[str] = set()
        self._before = gateway.up()

    def once(self) -> None:
        # An empty set means that the gateway did not answer in time. It says nothing about the engines.
        if up := self.gateway.up():
            self.names |= self._before - up


def _engines_up(pool: dict[str, Any]) -> set[str]:
    return {engine["name"] for engine in pool.get("engines", ()) if engine.get("state") == "up"}


def _parse_json(raw: bytes) -> dict[str, Any]:
    try:
        document = json.loads(raw)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _error_message(document: dict[str, Any]) -> str:
    error = document.get("error")
    return str(error.get("message", "no reason given") if isinstance(error, dict) else error or "no reason given")


ADMIN_KEY_VARIABLE = "MANYEYES_ADMIN_KEY"
ANNOTATION_TIMEOUT_S = 5.0
SPARE_S = 60.0
"""An annotation expires this long after its planned end, because a run that is killed cannot delete it."""


class ControllerAnnotations:
    def __init__(self, url: str, trusted: str = "") -> None:
        self._url, self._trusted = f"{url.rstrip('/').removesuffix('/v1')}/api/annotations", trusted
        self._key = os.environ.get(ADMIN_KEY_VARIABLE, "")
        self.problem = ""

    @contextlib.contextmanager
    def during(self, text: str, seconds: float) -> Iterator[None]:
        """Annotates the time while the body runs; `seconds` is the planned duration."""
        text = text.replace("/", " of ")[:120]
        self._request("POST", "", {"text": text, "seconds": min(86_400, seconds + SPARE_S)})
        try:
            yield
        finally:
            self._request("DELETE", "/" + urllib.parse.quote(text, safe=""))

    def _request(self, method: str, path: str, body: dict[str, object] | None = None) -> None:
        """Sends one request. After the first failure prints the reason and sends no more requests."""
        if not self._key or self.problem:
            return
        try:
            fetch(
                self._url + path,
                body,
                bearer(self._key),
                method=method,
                trusted=self._trusted,
                timeout_s=ANNOTATION_TIMEOUT_S,
            )
        except (OSError, ValueError) as error:
            self.problem = f"the run is not marked in the cluster: {error}"
            console.print(f"  !!  {self.problem}")


class GrafanaAnnotations:
    """Client for Grafana's annotations (`POST /api/annotations`) at `url`, with a service account's `token`.

    Does nothing without a URL.
    """

    def __init__(self, url: str = "", token: str = "") -> None:
        self._url, self._token = url.rstrip("/"), token
        self.problem = ""

    def annotate(self, text: str, start_s: float, end_s: float, tags: Sequence[str] = ()) -> None:
        """Creates one annotation. After the first failure prints the reason and creates no more."""
        if not self._url or self.problem:
            return
        times = {"time": round(1000 * start_s), "timeEnd": round(1000 * end_s)}
        body = {**times, "tags": ["manyeyes-loadtest", *tags], "text": text}
        try:
            fetch(
                f"{self._url}/api/annotations",
                body,
                bearer(self._token),
                timeout_s=ANNOTATION_TIMEOUT_S,
                uses_proxy=True,
            )
        except (OSError, ValueError) as error:
            self.problem = f"Grafana accepts no annotations: {error}. The run continues without them."
            console.print(f"  !!  {self.problem}")
