"""A sight as tables of at most 80 columns. Pure: what rich prints is made here, printed elsewhere."""

from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from manyeyes.monitoring.status.snapshot import ClusterStatus, EngineStatus, PoolStatus

WIDTH = 80
EVENTS_SHOWN = 5
COLOURS = {"all up": "green", "short": "yellow", "on fallback": "red", "EMPTY": "bold red"}
ENGINE_COLOURS = {"up": "green", "remote": "green", "suspect": "yellow", "down": "bold red"}
UNKNOWN = "–"
NO_POOL = "No pool is served: none has an engine or an endpoint, so every request is answered with 404. `make up` starts them."
LATE_ERRORS = 0.01
"""From here on an error share is red."""
KV_FULL = 0.9


def render_status(sight: ClusterStatus, now: datetime | None = None) -> RenderableType:
    """Everything, top to bottom: what is wrong stands above what merely happened."""
    now = now or datetime.now(UTC)
    parts: list[RenderableType] = [_pools(sight), _engines(sight)] if sight.pools else [Text(NO_POOL, style="bold red")]
    reasons = _why_not_up(sight, now)
    if reasons:
        parts.append(reasons)
    parts.append(_alerts(sight, now))
    parts += [Text(f"!!  {sentence}", style="yellow") for sentence in sight.trouble]
    if sight.events:
        parts.append(_events(sight))
    return Group(*[line for part in parts for line in (part, Text(""))][:-1])


def _table(*columns: tuple[str, str]) -> Table:
    """Columns by title: `<` holds words, `>` numbers. Only the first one is broken where all of it is too wide."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for number, (title, side) in enumerate(columns):
        table.add_column(title, justify="left" if side == "<" else "right", no_wrap=number > 0, overflow="fold")
    return table


def _pools(sight: ClusterStatus) -> Table:
    table = _table(
        ("pool", "<"), ("state", "<"), ("up", ">"), ("RPS", ">"), ("P95", ">"), ("TTFT P95", ">"), ("errors", ">")
    )
    for pool in sight.pools:
        table.add_row(
            Text.assemble((pool.name, "bold"), ("\n" + _about(pool), "dim")),
            Text(pool.state, COLOURS[pool.state]),
            f"{pool.up}/{pool.total}",
            _number(pool.rps, ".1f"),
            _seconds(pool.p95_s),
            _seconds(pool.first_token_p95_s),
            Text(_percent(pool.error_share, 1), "red" if (pool.error_share or 0) >= LATE_ERRORS else ""),
        )
    return table


def _about(pool: PoolStatus) -> str:
    """The model's short name, what it is not, and who stands in."""
    words = [pool.model.rsplit("/", 1)[-1]]
    if pool.notice:
        words.append(pool.notice.split(",")[0])
    if pool.fallback:
        used = f" ({_percent(pool.fallback_share)} of them)" if pool.fallback_share else ""
        words.append(f"else {pool.fallback}{used}")
    return ", ".join(words)


def _engines(sight: ClusterStatus) -> Table:
    table = _table(
        ("engine", "<"),
        ("state", "<"),
        ("in flight", ">"),
        ("hidden", ">"),
        ("tokens/s", ">"),
        ("KV", ">"),
        ("GPU", ">"),
        ("share", ">"),
    )
    for pool in sight.pools:
        for one in pool.engines:
            full = (one.kv_cache_share or 0) >= KV_FULL
            table.add_row(
                one.name,
                Text(one.words, ENGINE_COLOURS.get(one.state, "blue")),
                _number(one.in_flight, "d"),
                Text(_number(one.hidden_queue, "d"), "yellow" if one.hidden_queue else ""),
                _number(one.tokens_per_s, ".0f"),
                Text(_percent(one.kv_cache_share), "red" if full else ""),
                _percent(one.gpu_share),
                _percent(one.request_share),
            )
    return table


def _why_not_up(sight: ClusterStatus, now: datetime) -> Text | None:
    lines = [
        Text.assemble((one.name, "bold"), f" {one.reason or 'is ' + one.words} ({format_age(one.since, now)} ago)")
        for pool in sight.pools
        for one in pool.engines
        if _is_odd(one)
    ]
    return Text("\n").join(lines) if lines else None


def _is_odd(engine: EngineStatus) -> bool:
    return not engine.serves or engine.state == "suspect"


def _alerts(sight: ClusterStatus, now: datetime) -> RenderableType:
    if not sight.alerts:
        known = not sight.trouble
        return Text("no alert fires" if known else "alerts are not known", style="green" if known else "yellow")
    table = _table(("firing", "<"), ("for", ">"), ("severity", ">"))
    for alert in sight.alerts:
        said = alert.annotations.get("summary") or alert.annotations.get("description") or ""
        about = ", ".join(f"{key} {alert.labels[key]}" for key in ("pool", "engine") if key in alert.labels)
        severity = alert.labels.get("severity", "")
        table.add_row(
            Text.assemble((alert.name, "bold red"), f" {said or about}"),
            format_age(alert.since, now),
            Text(severity, "red" if severity in ("critical", "page") else "yellow"),
        )
    return table


def _events(sight: ClusterStatus) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="dim")
    table.add_column()
    for at, sentence in sight.events[:EVENTS_SHOWN]:
        table.add_row(f"{at.astimezone():%H:%M:%S}", sentence)
    return table


def format_age(since: datetime, now: datetime) -> str:
    """12 s, 4 min, 3 h, 2 d: one number says enough."""
    seconds = max(0.0, (now - since).total_seconds())
    for most, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < most:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def _number(value: float | None, form: str) -> str:
    return UNKNOWN if value is None else format(value, form)


def _seconds(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.1f} s"


def _percent(share: float | None, digits: int = 0) -> str:
    return UNKNOWN if share is None else f"{100 * share:.{digits}f}%"
