"""Starts, watches and stops a load test, over the page that Locust has at /locust/."""

from __future__ import annotations

import html
from typing import Any

import httpx

from webui.i18n.translations import N_, _
from webui.theme import hint_html
from webui.user_error import UserError

TIMEOUT_S = 5.0
MAX_USERS = 500
RUN_STATES = {
    "ready": N_("ready: no run yet"),
    "spawning": N_("people come"),
    "running": N_("running"),
    "cleanup": N_("tidying up"),
    "stopping": N_("stopping"),
    "stopped": N_("stopped"),
    "missing": N_("no worker"),
}
"""Locust's words for the state of a run."""


def locust_absent_error() -> UserError:
    return UserError(_("The load test does not run."), _("`manyeyes locust` starts it; then start a run here."))


class LocustClient:
    def __init__(self, url: str) -> None:
        self._url = url
        self._client = httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False)

    async def start(self, people: int, a_second: float) -> str:
        """What came of it. Raises UserError."""
        if not 1 <= people <= MAX_USERS:
            raise UserError(
                _("A run from here has 1 to {most} people.", most=MAX_USERS), _("For more, use `make loadtest`.")
            )
        found = await self._ask("POST", "/swarm", {"user_count": str(people), "spawn_rate": str(a_second)})
        if not found.get("success", True):
            raise UserError(
                str(found.get("message") or _("The load test refused.")), _("See its own page at /locust/.")
            )
        return _("{people} people begin, {a_second} a second.", people=people, a_second=f"{a_second:g}")

    async def stop(self) -> str:
        """What came of it. Raises UserError."""
        await self._ask("GET", "/stop")
        return _("The run ends.")

    async def stats(self) -> dict[str, Any] | None:
        """Locust's own figures; None where it does not run."""
        try:
            return await self._ask("GET", "/stats/requests")
        except UserError:
            return None

    async def _ask(self, method: str, path: str, form: dict[str, str] | None = None) -> dict[str, Any]:
        try:
            response = await self._client.request(method, f"{self._url}{path}", data=form)
            response.raise_for_status()
            found = response.json()
        except (httpx.HTTPError, ValueError):
            raise locust_absent_error() from None
        return found if isinstance(found, dict) else {}


def load_run_html(stats: dict[str, Any] | None) -> str:
    """HTML: how the run goes, in one line."""
    if stats is None:
        return hint_html(str(locust_absent_error()))
    state = str(stats.get("state", "unknown"))
    found = _figures(stats)
    words = [
        _(RUN_STATES.get(state, state)),
        _("{people} people", people=found["people"]),
        _("{rps} requests/s", rps=f"{found['rps']:.1f}"),
        f"p95 {found['p95_ms']:.0f} ms" if found["p95_ms"] is not None else "",
        _("{share} % failed", share=f"{100 * found['failed']:.1f}"),
    ]
    return f'<p role="status"><b>{html.escape(" · ".join(word for word in words if word))}</b></p>'


def load_run_facts(stats: dict[str, Any] | None) -> dict[str, Any]:
    """For programs."""
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
