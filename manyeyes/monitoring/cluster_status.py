"""Queries the controller and Prometheus and renders the cluster's status for `make status`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from manyeyes.monitoring.prometheus_client import ActiveAlert, InstantSample, PrometheusClient, PrometheusError

SERVES = frozenset({"up", "suspect", "remote"})
STATE_WORDS = {
    "unknown": "not yet known",
    "starting": "starting",
    "warming": "warming up",
    "up": "up",
    "suspect": "up, suspect",
    "draining": "draining",
    "sleeping": "sleeping",
    "down": "DOWN",
    "remote": "remote",
}
"""Words for the controller's states (manyeyes/controller/health/state_machine.py)."""


@dataclass(frozen=True)
class EngineStatus:
    """One row of the table of engines. None: unknown."""

    name: str
    pool: str
    state: str
    since: datetime
    reason: str
    """Why it is in its state; empty if no reason is known yet."""
    in_flight: int | None
    hidden_queue: int | None
    tokens_per_s: float | None
    kv_cache_share: float | None
    gpu_share: float | None
    """Use of its GPUs, 0 to 1, as reported by DCGM."""
    request_share: float | None
    """Its share of the requests that the pool's engines answered, 0 to 1."""

    @property
    def serves(self) -> bool:
        return self.state in SERVES

    @property
    def words(self) -> str:
        return STATE_WORDS.get(self.state, self.state)


@dataclass(frozen=True)
class PoolStatus:
    """One row of the table of pools. None: unknown, or no requests."""

    name: str
    model: str
    notice: str
    up: int
    total: int
    fallback: str
    """The pool to which requests fall back; empty for none."""
    rps: float | None
    p95_s: float | None
    first_token_p95_s: float | None
    error_share: float | None
    fallback_share: float | None
    engines: tuple[EngineStatus, ...]

    @property
    def state(self) -> str:
        """How its users are served, in one or two words."""
        if self.up == 0:
            return "on fallback" if self.fallback else "EMPTY"
        return "all up" if self.up == self.total else "short"


@dataclass(frozen=True)
class ClusterStatus:
    """The status of all pools, alerts and events at one moment."""

    pools: tuple[PoolStatus, ...]
    alerts: tuple[ActiveAlert, ...]
    events: tuple[tuple[datetime, str], ...]
    """Newest first."""
    trouble: tuple[str, ...] = ()
    """What could not be queried, one sentence each."""

    @property
    def empty_pools(self) -> list[str]:
        return [pool.name for pool in self.pools if pool.up == 0]


QUERIES = {
    "rps": "pool:requests:rate1m",
    "errors": "pool:errors:ratio_rate5m",
    "p95": "pool:request_seconds:p95",
    "first_token": "pool:first_token_seconds:p95",
    "fallbacks": "pool:fallbacks:ratio_rate5m",
    "share": "pool_engine:requests:rate1m / on (pool) group_left sum by (pool) (pool_engine:requests:rate1m)",
    "gpu": "gpu:use:ratio",
}
"""PromQL queries by name. They use the same series as the dashboards (manyeyes/monitoring/prometheus/recording.py)."""


def build_status(
    status: Mapping[str, Any],
    events: Sequence[Mapping[str, str]],
    numbers: Mapping[str, Sequence[InstantSample]],
    alerts: Sequence[ActiveAlert],
    trouble: Sequence[str] = (),
) -> ClusterStatus:
    """`numbers`: the results of QUERIES; empty if Prometheus is off."""
    by_pool = {name: {one.labels.get("pool", ""): one.value for one in found} for name, found in numbers.items()}
    shares = {one.labels.get("engine", ""): one.value for one in numbers.get("share", ())}
    gpus = {one.labels.get("gpu", ""): one.value for one in numbers.get("gpu", ())}

    def engine(pool: str, one: Mapping[str, Any]) -> EngineStatus:
        # The last values of an engine that is down are out of date.
        load = one if one["state"] != "down" else {}
        used = [gpus[str(gpu)] for gpu in one["gpus"] if str(gpu) in gpus]
        return EngineStatus(
            name=one["name"],
            pool=pool,
            state=one["state"],
            since=datetime.fromisoformat(one["since"]),
            reason=one.get("reason") or "",
            in_flight=load.get("in_flight"),
            hidden_queue=load.get("hidden_queue"),
            tokens_per_s=load.get("tokens_per_s"),
            kv_cache_share=load.get("kv_cache_share"),
            gpu_share=sum(used) / len(used) if used else None,
            request_share=shares.get(one["name"]),
        )

    def pool(one: Mapping[str, Any]) -> PoolStatus:
        name = one["name"]
        figures = {key: found.get(name) for key, found in by_pool.items()}
        return PoolStatus(
            name=name,
            model=one["model"],
            notice=one.get("notice") or "",
            up=one["up"],
            total=one["total"],
            fallback=one.get("fallback") or "",
            rps=figures.get("rps"),
            # Without Prometheus the controller's value is used.
            p95_s=figures.get("p95") or (one["p95_ms"] / 1000 if one.get("p95_ms") else None),
            first_token_p95_s=figures.get("first_token"),
            error_share=figures.get("errors"),
            fallback_share=figures.get("fallbacks"),
            engines=tuple(engine(name, each) for each in one["engines"]),
        )

    dated = tuple((datetime.fromisoformat(event["at"]), event["sentence"]) for event in events)
    firing = tuple(alert for alert in alerts if alert.state == "firing")
    return ClusterStatus(tuple(pool(one) for one in status["pools"]), firing, dated, tuple(trouble))


OFF = "Prometheus is off (monitoring.enabled: false): no rates, no alerts"

Controller = Callable[[], tuple[dict[str, Any], list[dict[str, str]]]]
"""The controller's /status and /api/events, newest event first."""


def collect_status(controller: Controller, prometheus: PrometheusClient | None) -> ClusterStatus:
    """Queries both.

    Exceptions of `controller` are passed on; without Prometheus only the controller's part is shown.
    """
    status, events = controller()
    numbers: dict[str, list[InstantSample]] = {}
    alerts: list[ActiveAlert] = []
    trouble: list[str] = []
    if prometheus is None:
        trouble.append(OFF)
    else:
        try:
            numbers = {name: prometheus.now(query) for name, query in QUERIES.items()}
            alerts = prometheus.alerts()
        except PrometheusError as error:
            trouble.append(f"{error}: no rates, no alerts")
    return build_status(status, events, numbers, alerts, trouble)


WIDTH = 80
EVENTS_SHOWN = 5
COLOURS = {"all up": "green", "short": "yellow", "on fallback": "red", "EMPTY": "bold red"}
ENGINE_COLOURS = {"up": "green", "remote": "green", "suspect": "yellow", "down": "bold red"}
UNKNOWN = "–"
NO_POOL = "No pool is served: no pool has an engine or an endpoint, so every request gets 404. Start the engines with `make up`."
LATE_ERRORS = 0.01
"""An error share is red from this value on."""
KV_FULL = 0.9


def render_status(status: ClusterStatus, now: datetime | None = None) -> RenderableType:
    """The whole status. Problems are shown above events."""
    now = now or datetime.now(UTC)
    parts: list[RenderableType] = (
        [_pools(status), _engines(status)] if status.pools else [Text(NO_POOL, style="bold red")]
    )
    reasons = _why_not_up(status, now)
    if reasons:
        parts.append(reasons)
    parts.append(_alerts(status, now))
    parts += [Text(f"!!  {sentence}", style="yellow") for sentence in status.trouble]
    if status.events:
        parts.append(_events(status))
    return Group(*[line for part in parts for line in (part, Text(""))][:-1])


def _table(*columns: tuple[str, str]) -> Table:
    """Columns by title: `<` for words, `>` for numbers. Only the first column is wrapped if the table is too wide."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for number, (title, side) in enumerate(columns):
        table.add_column(title, justify="left" if side == "<" else "right", no_wrap=number > 0, overflow="fold")
    return table


def _pools(status: ClusterStatus) -> Table:
    table = _table(
        ("pool", "<"), ("state", "<"), ("up", ">"), ("RPS", ">"), ("P95", ">"), ("TTFT P95", ">"), ("errors", ">")
    )
    for pool in status.pools:
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
    """The model's short name, its notice and the fallback pool."""
    words = [pool.model.rsplit("/", 1)[-1]]
    if pool.notice:
        words.append(pool.notice.split(",")[0])
    if pool.fallback:
        used = f" ({_percent(pool.fallback_share)} of requests)" if pool.fallback_share else ""
        words.append(f"fallback {pool.fallback}{used}")
    return ", ".join(words)


def _engines(status: ClusterStatus) -> Table:
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
    for pool in status.pools:
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


def _why_not_up(status: ClusterStatus, now: datetime) -> Text | None:
    lines = [
        Text.assemble((one.name, "bold"), f" {one.reason or 'is ' + one.words} ({format_age(one.since, now)} ago)")
        for pool in status.pools
        for one in pool.engines
        if not one.serves or one.state == "suspect"
    ]
    return Text("\n").join(lines) if lines else None


def _alerts(status: ClusterStatus, now: datetime) -> RenderableType:
    if not status.alerts:
        known = not status.trouble
        return Text("no alerts are firing" if known else "alerts are unknown", style="green" if known else "yellow")
    table = _table(("firing", "<"), ("for", ">"), ("severity", ">"))
    for alert in status.alerts:
        said = alert.annotations.get("summary") or alert.annotations.get("description") or ""
        about = ", ".join(f"{key} {alert.labels[key]}" for key in ("pool", "engine") if key in alert.labels)
        severity = alert.labels.get("severity", "")
        table.add_row(
            Text.assemble((alert.name, "bold red"), f" {said or about}"),
            format_age(alert.since, now),
            Text(severity, "red" if severity in ("critical", "page") else "yellow"),
        )
    return table


def _events(status: ClusterStatus) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="dim")
    table.add_column()
    for at, sentence in status.events[:EVENTS_SHOWN]:
        table.add_row(f"{at.astimezone():%H:%M:%S}", sentence)
    return table


def format_age(since: datetime, now: datetime) -> str:
    """12 s, 4 min, 3 h, 2 d: one unit is enough."""
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
