"""Renders the cluster as HTML: a table of engines for each pool, and the last events."""

import html
from datetime import datetime
from typing import Any

from webui.cluster.controller_client import ClusterStatus
from webui.cluster.gateway_client import PoolStatus
from webui.i18n import N_, _, ngettext
from webui.theme import hint_html
from webui.user_error import gateway_unreachable_error

GOOD, PARTIAL, BAD = "up", "some", "none"
STATE_LEVELS = {"up": GOOD, "remote": GOOD, "down": BAD, "suspect": PARTIAL}
ENGINE_COLUMNS = (
    N_("Engine"),
    N_("State"),
    N_("In flight"),
    N_("Running"),
    N_("Waiting"),
    N_("Hidden queue"),
    N_("Tokens/s"),
    N_("KV cache"),
    N_("From cache"),
    N_("GPU"),
)
MAX_EVENTS = 30
ENGINE_STATES = {
    "up": N_("up"),
    "down": N_("down"),
    "draining": N_("draining"),
    "starting": N_("starting"),
    "warming": N_("warming"),
    "suspect": N_("suspect"),
    "sleeping": N_("sleeping"),
    "unknown": N_("unknown"),
    "remote": N_("remote"),
}
CONTROLLER_ABSENT = N_(
    "The controller does not respond. Requests are still served. Check that it runs (docker compose ps controller)."
)


def pools_html(status: ClusterStatus) -> str:
    if status.pools is None:
        return f'<div class="notice failure" role="alert">{_escape(_(CONTROLLER_ABSENT))}</div>'
    if not status.pools:
        return hint_html(_("The controller reports no pools."))
    return "".join(_pool_html(pool, status) for pool in status.pools)


def events_html(status: ClusterStatus) -> str:
    if not status.events:
        return hint_html(_("No events yet."))
    rows = "".join(
        f"<li><time>{_format_time(str(event.get('at', '')))}</time> {_escape(event.get('sentence'))}</li>"
        for event in status.events[:MAX_EVENTS]
    )
    label = _("Events, newest first")
    return f'<ol class="events" aria-label="{label}">{rows}</ol>'


def engine_names(status: ClusterStatus) -> list[str]:
    """Returns the engines that can be drained. Remote engines cannot."""
    return [
        str(engine["name"])
        for pool in status.pools or []
        for engine in pool.get("engines", [])
        if engine.get("state") != "remote"
    ]


def pool_names(status: ClusterStatus) -> list[str]:
    return [str(pool["name"]) for pool in status.pools or [] if pool.get("flavour") != "remote"]


def _pool_html(pool: dict[str, Any], status: ClusterStatus) -> str:
    up, total = pool.get("up", 0), pool.get("total", 0)
    facts = [_("{up} of {total} up", up=up, total=total), str(pool.get("model") or "")]
    if pool.get("p95_ms") is not None:
        facts.append(f"p95 {_format_ms(pool['p95_ms'])}")
    if pool.get("first_byte_p95_ms") is not None:
        facts.append(_("first byte p95 {time}", time=_format_ms(pool["first_byte_p95_ms"])))
    if pool.get("fallback"):
        facts.append(_("falls back to {pool}", pool=pool["fallback"]))
    head = "".join(f'<th scope="col">{_(name)}</th>' for name in ENGINE_COLUMNS)
    rows = "".join(_engine_row(engine, status) for engine in pool.get("engines", []))
    return (
        f'<section class="pool-table"><h3>{_escape(pool.get("name"))} <span>{_escape(" · ".join(filter(None, facts)))}</span></h3>'
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></section>'
    )


def _engine_row(engine: dict[str, Any], status: ClusterStatus) -> str:
    name, state = str(engine.get("name")), str(engine.get("state"))
    gauges = status.gauges
    level = STATE_LEVELS.get(state, PARTIAL)
    reason = f"<small>{_escape(engine['reason'])}</small>" if engine.get("reason") and state != "up" else ""
    shown = f'<span class="pool {level}"><i aria-hidden="true"></i>{_escape(_(ENGINE_STATES.get(state, state)))}</span>{reason}'
    hidden = engine.get("hidden_queue")
    cells = [
        f"<b>{_escape(name)}</b>",
        shown,
        _number_cell(engine.get("in_flight")),
        _number_cell(engine.get("running")),
        _number_cell(engine.get("waiting")),
        f'<b class="bad">{hidden}</b>' if hidden else _number_cell(hidden),
        _number_cell(gauges.get("tokens_per_s", {}).get(name)),
        _percent_cell(gauges.get("kv", {}).get(name)),
        _percent_cell(gauges.get("cached", {}).get(name)),
        _gpu_cell(engine.get("gpus") or [], gauges.get("gpu", {})),
    ]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _gpu_cell(gpus: list[Any], used: dict[str, float]) -> str:
    if not gpus:
        return "–"
    return ", ".join(f"{gpu}" + (f" ({used[str(gpu)]:.0f} %)" if str(gpu) in used else "") for gpu in gpus)


def _number_cell(value: Any) -> str:
    return "–" if not isinstance(value, int | float) else f"{value:.0f}"


def _percent_cell(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"


def _format_ms(value: float) -> str:
    return f"{value:.0f} ms" if value < 10_000 else f"{value / 1000:.1f} s"


def _escape(value: Any) -> str:
    return html.escape(str(value if value is not None else ""))


def _format_time(at: str) -> str:
    try:
        return f"{datetime.fromisoformat(at):%H:%M:%S}"
    except ValueError:
        return html.escape(at[:20])


def pool_states_html(pools: list[PoolStatus] | None) -> str:
    """Returns HTML such as 'qwen3-vl-8b 3 of 3 engines up' for each pool."""
    return f'<div class="pools" role="status">{"".join(_pool_state_html(pool) for pool in pools or [])}</div>'


def pool_notices_html(pools: list[PoolStatus] | None, gateway_url: str) -> str:
    """Returns the notices as HTML; empty if there are none. `pools` is None if the gateway is unreachable."""
    if pools is None:
        return _notice_html(gateway_unreachable_error(gateway_url).summary, "failure")
    if not pools:
        return _notice_html(_("The gateway reports no pools."), "failure")
    pools_by_notice: dict[str, list[str]] = {}
    for pool in pools:
        if pool.notice:
            pools_by_notice.setdefault(pool.notice, []).append(pool.name)
    return "".join(_notice_html(f"{', '.join(names)}: {notice}") for notice, names in pools_by_notice.items())


def _pool_state_html(pool: PoolStatus) -> str:
    level = "up" if pool.up == pool.total and not pool.suspect else "some" if pool.up else "none"
    text = _("{up} of {engines} up", up=pool.up, engines=ngettext("{count} engine", "{count} engines", pool.total))
    text += _(", {count} suspect", count=pool.suspect) if pool.suspect else ""
    return f'<span class="pool {level}"><i aria-hidden="true"></i><b>{html.escape(pool.name)}</b> {text}</span>'


def _notice_html(text: str, kind: str = "warning") -> str:
    return f'<div class="notice {kind}" role="alert">{html.escape(text)}</div>'
