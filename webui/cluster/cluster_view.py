"""The cluster as HTML: a table of engines for each pool, and the last events."""

from __future__ import annotations

import html
from datetime import datetime
from typing import Any

from webui.cluster.controller_client import Sight
from webui.i18n.language import later, say

GOOD, GOING, BAD = "up", "some", "none"
LEVELS = {"up": GOOD, "remote": GOOD, "down": BAD, "suspect": GOING}
COLUMNS = (
    later("Engine"),
    later("State"),
    later("In flight"),
    later("Running"),
    later("Waiting"),
    later("Hidden queue"),
    later("Tokens/s"),
    later("KV cache"),
    later("From cache"),
    later("GPU"),
)
MOST_EVENTS = 30
STATES = {
    "up": later("up"),
    "down": later("down"),
    "draining": later("draining"),
    "starting": later("starting"),
    "warming": later("warming"),
    "suspect": later("suspect"),
    "sleeping": later("sleeping"),
    "unknown": later("unknown"),
    "remote": later("remote"),
}
GONE = later(
    "The controller does not answer. Requests go on as they did; see whether it runs (docker compose ps controller)."
)


def pools(sight: Sight) -> str:
    if sight.pools is None:
        return f'<div class="notice failure" role="alert">{_text(say(GONE))}</div>'
    if not sight.pools:
        return f'<p class="empty">{say("The controller knows no pool.")}</p>'
    return "".join(_pool(pool, sight) for pool in sight.pools)


def events(sight: Sight) -> str:
    if not sight.events:
        return f'<p class="empty">{say("Nothing has happened yet.")}</p>'
    rows = "".join(
        f"<li><time>{_time(str(one.get('at', '')))}</time> {_text(one.get('sentence'))}</li>"
        for one in sight.events[:MOST_EVENTS]
    )
    return f'<ol class="events" aria-label="{say("Events, newest first")}">{rows}</ol>'


def engine_names(sight: Sight) -> list[str]:
    """Those that can be drained: not what is served elsewhere."""
    return [
        str(engine["name"])
        for pool in sight.pools or []
        for engine in pool.get("engines", [])
        if engine.get("state") != "remote"
    ]


def pool_names(sight: Sight) -> list[str]:
    return [str(pool["name"]) for pool in sight.pools or [] if pool.get("flavour") != "remote"]


def facts(sight: Sight) -> dict[str, Any]:
    """For programs."""
    return {"pools": sight.pools, "events": sight.events[:MOST_EVENTS], "gauges": sight.gauges}


def _pool(pool: dict[str, Any], sight: Sight) -> str:
    up, total = pool.get("up", 0), pool.get("total", 0)
    said = [say("{up} of {total} up", up=up, total=total), str(pool.get("model") or "")]
    if pool.get("p95_ms") is not None:
        said.append(f"p95 {_ms(pool['p95_ms'])}")
    if pool.get("first_byte_p95_ms") is not None:
        said.append(say("first byte p95 {time}", time=_ms(pool["first_byte_p95_ms"])))
    if pool.get("fallback"):
        said.append(say("falls back to {pool}", pool=pool["fallback"]))
    head = "".join(f'<th scope="col">{say(name)}</th>' for name in COLUMNS)
    rows = "".join(_engine(engine, sight) for engine in pool.get("engines", []))
    return (
        f'<section class="pool-table"><h3>{_text(pool.get("name"))} <span>{_text(" · ".join(filter(None, said)))}</span></h3>'
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></section>'
    )


def _engine(engine: dict[str, Any], sight: Sight) -> str:
    name, state = str(engine.get("name")), str(engine.get("state"))
    gauges = sight.gauges
    level = LEVELS.get(state, GOING)
    why = f"<small>{_text(engine['reason'])}</small>" if engine.get("reason") and state != "up" else ""
    shown = f'<span class="pool {level}"><i aria-hidden="true"></i>{_text(say(STATES.get(state, state)))}</span>{why}'
    hidden = engine.get("hidden_queue")
    cells = [
        f"<b>{_text(name)}</b>",
        shown,
        _number(engine.get("in_flight")),
        _number(engine.get("running")),
        _number(engine.get("waiting")),
        f'<b class="bad">{hidden}</b>' if hidden else _number(hidden),
        _number(gauges.get("tokens_per_s", {}).get(name)),
        _share(gauges.get("kv", {}).get(name)),
        _share(gauges.get("cached", {}).get(name)),
        _gpus(engine.get("gpus") or [], gauges.get("gpu", {})),
    ]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _gpus(gpus: list[Any], used: dict[str, float]) -> str:
    if not gpus:
        return "–"
    return ", ".join(f"{gpu}" + (f" ({used[str(gpu)]:.0f} %)" if str(gpu) in used else "") for gpu in gpus)


def _number(value: Any) -> str:
    return "–" if not isinstance(value, int | float) else f"{value:.0f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"


def _ms(value: float) -> str:
    return f"{value:.0f} ms" if value < 10_000 else f"{value / 1000:.1f} s"


def _text(value: Any) -> str:
    return html.escape(str(value if value is not None else ""))


def _time(at: str) -> str:
    try:
        return f"{datetime.fromisoformat(at):%H:%M:%S}"
    except ValueError:
        return html.escape(at[:20])
