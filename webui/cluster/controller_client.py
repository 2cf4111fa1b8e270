"""Clients of the controller (states, events, metrics; drain, resume and scale with the admin key) and of Locust."""

import asyncio
import html
import re
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx

from webui.i18n import N_, _
from webui.theme import hint_html
from webui.user_error import UserError

TIMEOUT_S = 3.0
CHANGE_TIMEOUT_S = 15.0
CACHE_S = 1.0
"""Requests of users within this time share one result."""
GAUGES = {
    "manyeyes_engine_tokens_per_second": "tokens_per_s",
    "manyeyes_engine_kv_cache_usage_ratio": "kv",
}
QUERIES = {
    "cached": "sum by (engine) (rate(vllm:prefix_cache_hits_total[5m])) "
    "/ sum by (engine) (rate(vllm:prefix_cache_queries_total[5m]))",
    "gpu": "avg by (gpu) (DCGM_FI_DEV_GPU_UTIL)",
}
SAMPLE_LINE = re.compile(r'^(\w+)\{[^}]*?engine="([^"]*)"[^}]*\} ([0-9.eE+-]+)$', re.MULTILINE)


@dataclass(frozen=True)
class ClusterStatus:
    """Current state of the cluster. `pools` is None if the controller did not respond."""

    pools: list[dict[str, Any]] | None
    events: list[dict[str, Any]] = field(default_factory=list)
    gauges: dict[str, dict[str, float]] = field(default_factory=dict)
    """Values by gauge (tokens_per_s, kv, cached) and engine; `gpu` by GPU number."""


class ControllerClient:
    def __init__(self, url: str, prometheus_url: str) -> None:
        self._url = url
        self._prometheus_url = prometheus_url
        self._client = httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False)
        self._lock = asyncio.Lock()
        self._cached: tuple[float, ClusterStatus] | None = None

    async def fetch_status(self, fresh: bool = False) -> ClusterStatus:
        """Returns the current state, cached for CACHE_S. Never raises."""
        async with self._lock:
            if self._cached is None or fresh or time.monotonic() - self._cached[0] > CACHE_S:
                self._cached = time.monotonic(), await self._fetch()
            return self._cached[1]

    async def drain(self, engine: str, key: str) -> str:
        """Drains an engine; requires the admin key. Returns the result as a sentence. Raises UserError."""
        result = await self._change(f"/api/engines/{quote(engine, safe='')}/drain", key, {"reason": "from the page"})
        count = result.get("in_flight")
        return _(
            "Draining {engine}. Requests in flight: {count}.",
            engine=engine,
            count=_("unknown") if count is None else count,
        )

    async def resume(self, engine: str, key: str) -> str:
        """Resumes a drained engine; requires the admin key. Returns the result as a sentence. Raises UserError."""
        await self._change(f"/api/engines/{quote(engine, safe='')}/resume", key, {"reason": "from the page"})
        return _("Resumed {engine}. It receives requests once it is up.", engine=engine)

    async def scale(self, pool: str, engines: int, key: str) -> str:
        """Sets the number of engines of a pool (0: its own policy); requires the admin key.

        Returns the result as a sentence. Raises UserError.
        """
        await self._change(f"/api/pools/{quote(pool, safe='')}/scale", key, {"engines": engines or None})
        if engines:
            return _("{pool} is set to {engines} engines.", pool=pool, engines=engines)
        return _("{pool} follows its own scaling policy again.", pool=pool)

    async def _fetch(self) -> ClusterStatus:
        status, events, metrics, *queried = await asyncio.gather(
            self._get(f"{self._url}/status"),
            self._get(f"{self._url}/api/events"),
            self._get(f"{self._url}/metrics"),
            *(self._get(f"{self._prometheus_url}/api/v1/query", query=query) for query in QUERIES.values()),
        )
        pools = status.json().get("pools") if status else None
        gauges = parse_gauges(metrics.text if metrics else "")
        for name, response in zip(QUERIES, queried, strict=True):
            gauges[name] = parse_query_result(response.json() if response else None)
        event_list = events.json() if events else []
        return ClusterStatus(
            pools if isinstance(pools, list) else None, event_list if isinstance(event_list, list) else [], gauges
        )

    async def _get(self, url: str, **query: str) -> httpx.Response | None:
        try:
            response = await self._client.get(url, params=query)
            if response.status_code == 200 and (url.endswith("/metrics") or response.json() is not None):
                return response
        except (httpx.HTTPError, ValueError):
            pass
        return None

    async def _change(self, path: str, key: str, body: dict[str, Any]) -> dict[str, Any]:
        headers = _admin_headers(key)
        try:
            response = await self._client.post(
                f"{self._url}{path}", json=body, headers=headers, timeout=CHANGE_TIMEOUT_S
            )
        except (httpx.HTTPError, UnicodeEncodeError):
            raise UserError(
                _("The controller does not respond."), _("Check that it is running (docker compose ps controller).")
            ) from None
        if response.status_code >= 400:
            raise _refusal_error(response)
        result = response.json()
        return result if isinstance(result, dict) else {}


def parse_gauges(metrics: str) -> dict[str, dict[str, float]]:
    """Parses the engines' gauges from Prometheus' text format."""
    gauges: dict[str, dict[str, float]] = {name: {} for name in GAUGES.values()}
    for name, engine, value in SAMPLE_LINE.findall(metrics):
        if name in GAUGES:
            gauges[GAUGES[name]][engine] = float(value)
    return gauges


def parse_query_result(body: object) -> dict[str, float]:
    """Parses the values of an instant query, keyed by their only label."""
    values: dict[str, float] = {}
    try:
        for series in body["data"]["result"]:  # type: ignore[index]  # any JSON may arrive; errors are caught below
            label = next(iter(series["metric"].values()), "")
            value = float(series["value"][1])
            if value == value:  # NaN: there were no requests in that time
                values[str(label)] = value
    except (TypeError, KeyError, ValueError, AttributeError, IndexError):
        return {}
    return values


def _admin_headers(key: str) -> dict[str, str]:
    """Raises UserError if no key was entered."""
    if not key.strip():
        raise UserError(_("This action requires the admin key."), _("`manyeyes admin-key` prints it. Enter it above."))
    return {"Authorization": f"Bearer {key.strip()}"}


def _refusal_error(response: httpx.Response) -> UserError:
    try:
        message = str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = _("The controller responded with status {status}.", status=response.status_code)
        if response.status_code in (404, 405):
            message = _("The controller does not have this API call. It may be older than the page.")
    nexts = {401: _("Enter the correct key, then try again."), 403: _("Contact the operator of the cluster.")}
    return UserError(message, nexts.get(response.status_code, _("Nothing was changed.")))


LOCUST_TIMEOUT_S = 5.0
MAX_USERS = 500
RUN_STATES = {
    "ready": N_("ready: no run yet"),
    "spawning": N_("starting users"),
    "running": N_("running"),
    "cleanup": N_("cleaning up"),
    "stopping": N_("stopping"),
    "stopped": N_("stopped"),
    "missing": N_("no worker"),
}
"""Locust's states of a run, and their texts."""


def locust_absent_error() -> UserError:
    return UserError(_("The load test is not running."), _("Start it with `manyeyes locust`, then start a run here."))


class LocustClient:
    def __init__(self, url: str) -> None:
        self._url = url
        self._client = httpx.AsyncClient(timeout=LOCUST_TIMEOUT_S, trust_env=False)

    async def start(self, people: int, key: str, a_second: float = 1.0) -> str:
        """Starts a load run with the admin key. Returns the result as a sentence. Raises UserError."""
        if not 1 <= people <= MAX_USERS:
            raise UserError(
                _("A run from this page can have 1 to {limit} users.", limit=MAX_USERS),
                _("For more, use `make loadtest`."),
            )
        form = {"user_count": str(people), "spawn_rate": str(a_second)}
        result = await self._request("POST", "/swarm", form, _admin_headers(key))
        if not result.get("success", True):
            raise UserError(
                str(result.get("message") or _("The load test refused the request.")),
                _("See the Locust page at /locust/."),
            )
        return _("Starting {people} users, {a_second} per second.", people=people, a_second=f"{a_second:g}")

    async def stop(self, key: str) -> str:
        """Stops the load run with the admin key. Returns the result as a sentence. Raises UserError."""
        await self._request("POST", "/stop", headers=_admin_headers(key))
        return _("The run is stopping.")

    async def stats(self) -> dict[str, Any] | None:
        """Returns Locust's statistics; None if Locust is not running."""
        try:
            return await self._request("GET", "/stats/requests")
        except UserError:
            return None

    async def _request(
        self, method: str, path: str, form: dict[str, str] | None = None, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        try:
            response = await self._client.request(method, f"{self._url}{path}", data=form, headers=headers)
            if response.status_code in (401, 403):
                raise _refusal_error(response)
            response.raise_for_status()
            result = response.json()
        except (httpx.HTTPError, ValueError):  # ValueError: also a key that is not ASCII
            raise locust_absent_error() from None
        return result if isinstance(result, dict) else {}


def load_run_html(stats: dict[str, Any] | None) -> str:
    """Returns the state of the run as one line of HTML."""
    if stats is None:
        return hint_html(str(locust_absent_error()))
    state = str(stats.get("state", "unknown"))
    figures = _figures(stats)
    parts = [
        _(RUN_STATES.get(state, state)),
        _("{people} users", people=figures["people"]),
        _("{rps} requests/s", rps=f"{figures['rps']:.1f}"),
        f"p95 {figures['p95_ms']:.0f} ms" if figures["p95_ms"] is not None else "",
        _("{share} % failed", share=f"{100 * figures['failed']:.1f}"),
    ]
    return f'<p role="status"><b>{html.escape(" · ".join(word for word in parts if word))}</b></p>'


def load_run_facts(stats: dict[str, Any] | None) -> dict[str, Any]:
    """Returns the state of the run for programs."""
    return {"state": "absent"} if stats is None else {"state": stats.get("state")} | _figures(stats)


def _figures(stats: dict[str, Any]) -> dict[str, Any]:
    percentiles = stats.get("current_response_time_percentiles")
    p95 = percentiles.get("response_time_percentile_0.95") if isinstance(percentiles, dict) else None
    return {
        "people": _number(stats.get("user_count")) or 0,
        "rps": _number(stats.get("total_rps")) or 0.0,
        "p95_ms": _number(p95),
        "failed": _number(stats.get("fail_ratio")) or 0.0,
    }


def _number(value: Any) -> Any:
    return value if isinstance(value, int | float) and value == value else None
