"""What the gateway says of itself, and whether it can be asked at all: before a run, and who is up during one."""

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
    """The target cannot be tested; the text says what failed and what to do next."""


@dataclass
class GatewayClient:
    """One address with its key. `trusted`: a file with the certificate to trust."""

    url: str
    key: str = ""
    trusted: str = ""

    def __post_init__(self) -> None:
        self.base = parse_target(self.url).base

    def ready(self, model: str) -> str:
        """The model to ask: `model`, or the first one there is. One short answer has been given. Raises Unusable."""
        models = self._models()
        if not model and not models:
            raise GatewayUnusable(f"{self.base} serves no model. Name one with MODEL=.")
        chosen = model or models[0]
        body = {"model": chosen, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
        status, said = self._ask("/v1/chat/completions", body, FIRST_ANSWER_S)
        if status == 404:
            raise GatewayUnusable(
                f"{self.base} has no model {chosen!r}; it has {', '.join(models) or 'none'}. Name one with MODEL=."
            )
        if status != 200:
            raise GatewayUnusable(f"{self.base} answered a first question with {status}: {_error_message(said)}")
        return chosen

    def _models(self) -> list[str]:
        status, said = self._ask("/v1/models", None, TIMEOUT_S)
        if status in (401, 403):
            raise GatewayUnusable(
                f"{self.base} refuses the key ({status}: {_error_message(said)}). Give one with KEY= (`manyeyes key` makes one)."
            )
        return [one["id"] for one in said.get("data", ())] if status == 200 else []

    def up(self) -> set[str]:
        """Names of the engines that get requests; empty where the target is not this project's gateway."""
        return {name for pool in self._pools() for name in _engines_up(pool)}

    def up_in(self, pool: str) -> set[str]:
        return {name for one in self._pools() if one.get("name") == pool for name in _engines_up(one)}

    def _pools(self) -> list[dict[str, Any]]:
        try:
            status, said = self._ask("/healthz", None, TIMEOUT_S)
        except GatewayUnusable:
            return []
        return (said.get("pools") or []) if status in (200, 503) else []

    def _ask(self, path: str, body: dict[str, Any] | None, timeout_s: float) -> tuple[int, dict[str, Any]]:
        try:
            raw = fetch(self.base + path, body, bearer(self.key), trusted=self.trusted, timeout_s=timeout_s)
            return 200, _parse_json(raw)
        except urllib.error.HTTPError as error:
            return error.code, _parse_json(error.read())
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise GatewayUnusable(
                f"{self.base} does not answer: {reason}. Is it up (`make status`), and is URL= right?"
            ) from None


class EngineLossWatch(Repeating):
    """Engines that were up when the watch began and were not once during it."""

    every_s = 1.0

    def __init__(self, gateway: GatewayClient) -> None:
        super().__init__()
        self.gateway = gateway
        self.names: set[str] = set()
        self._before = gateway.up()

    def once(self) -> None:
        # An empty answer is a gateway that did not answer in time, which is not a word about its engines.
        if up := self.gateway.up():
            self.names |= self._before - up


def _engines_up(pool: dict[str, Any]) -> set[str]:
    return {one["name"] for one in pool.get("engines", ()) if one.get("state") == "up"}


def _parse_json(raw: bytes) -> dict[str, Any]:
    try:
        said = json.loads(raw)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _error_message(said: dict[str, Any]) -> str:
    error = said.get("error")
    return str(error.get("message", "no reason given") if isinstance(error, dict) else error or "no reason given")


ADMIN_KEY_VARIABLE = "MANYEYES_ADMIN_KEY"
MARK_TIMEOUT_S = 5.0
SPARE_S = 60.0
"""A run that is killed does not end its mark; the mark then ends so much later than planned."""


class ControllerAnnotations:
    def __init__(self, url: str, trusted: str = "") -> None:
        self._url, self._trusted = f"{url.rstrip('/').removesuffix('/v1')}/api/annotations", trusted
        self._key = os.environ.get(ADMIN_KEY_VARIABLE, "")
        self.trouble = ""

    @contextlib.contextmanager
    def during(self, text: str, seconds: float) -> Iterator[None]:
        """A mark around the body, which should take `seconds`."""
        text = text.replace("/", " of ")[:120]
        self._ask("POST", "", {"text": text, "seconds": min(86_400, seconds + SPARE_S)})
        try:
            yield
        finally:
            self._ask("DELETE", "/" + urllib.parse.quote(text, safe=""))

    def _ask(self, method: str, path: str, body: dict[str, object] | None = None) -> None:
        """After the first failure nobody asks again, and one line says why."""
        if not self._key or self.trouble:
            return
        try:
            fetch(
                self._url + path,
                body,
                bearer(self._key),
                method=method,
                trusted=self._trusted,
                timeout_s=MARK_TIMEOUT_S,
            )
        except (OSError, ValueError) as error:
            self.trouble = f"the run is not marked in the cluster: {error}"
            console.print(f"  !!  {self.trouble}")


class GrafanaAnnotations:
    """Grafana's HTTP API (`POST /api/annotations`), at `url` with a service account's `token`; without a URL nothing is done."""

    def __init__(self, url: str = "", token: str = "") -> None:
        self._url, self._token = url.rstrip("/"), token
        self.trouble = ""

    def mark(self, text: str, start_s: float, end_s: float, tags: Sequence[str] = ()) -> None:
        """After the first failure nobody asks again, and one line says why."""
        if not self._url or self.trouble:
            return
        times = {"time": round(1000 * start_s), "timeEnd": round(1000 * end_s)}
        body = {**times, "tags": ["manyeyes-loadtest", *tags], "text": text}
        try:
            fetch(f"{self._url}/api/annotations", body, bearer(self._token), timeout_s=MARK_TIMEOUT_S, uses_proxy=True)
        except (OSError, ValueError) as error:
            self.trouble = f"Grafana takes no marks: {error}. The run goes on without them."
            console.print(f"  !!  {self.trouble}")
