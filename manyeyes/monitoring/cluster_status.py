"""Queries the controller and Prometheus and renders the cluster's status for `make status`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from manyeyes.monitoring.prometheus_client import ActiveAlert, InstantSample, PrometheusClient, PrometheusError

SERVING_STATES = frozenset({"up", "suspect", "remote"})
STATE_TEXTS = {
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
    def is_serving(self) -> bool:
        return self.state in SERVING_STATES

    @property
    def state_text(self) -> str:
        return STATE_TEXTS.get(self.state, self.state)


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
    problems: tuple[str, ...] = ()
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
    problems: Sequence[str] = (),
) -> ClusterStatus:
    """`numbers`: the results of QUERIES; empty if Prometheus is off."""
    by_pool = {
        name: {sample.labels.get("pool", ""): sample.value for sample in samples} for name, samples in numbers.items()
    }
    shares = {sample.labels.get("engine", ""): sample.value for sample in numbers.get("share", ())}
    gpus = {sample.labels.get("gpu", ""): sample.value for sample in numbers.get("gpu", ())}

    def engine(pool: str, document: Mapping[str, Any]) -> EngineStatus:
        # The last values of an engine that is down are out of date.
        load = document if document["state"] != "down" else {}
        gpu_uses = [gpus[str(gpu)] for gpu in document["gpus"] if str(gpu) in gpus]
        return EngineStatus(
            name=document["name"],
            pool=pool,
            state=document["state"],
            since=datetime.fromisoformat(document["since"]),
            reason=document.get("reason") or "",
            in_flight=load.get("in_flight"),
            hidden_queue=load.get("hidden_queue"),
            tokens_per_s=load.get("tokens_per_s"),
            kv_cache_share=load.get("kv_cache_share"),
            gpu_share=sum(gpu_uses) / len(gpu_uses) if gpu_uses else None,
            request_share=shares.get(document["name"]),
        )

    def pool(document: Mapping[str, Any]) -> PoolStatus:
        name = document["name"]
        figures = {key: values.get(name) for key, values in by_pool.items()}
        return PoolStatus(
            name=name,
            model=document["model"],
            notice=document.get("notice") or "",
            up=document["up"],
            total=document["total"],
            fallback=document.get("fallback") or "",
            rps=figures.get("rps"),
            # Without Prometheus the controller's value is used.
            p95_s=figures.get("p95") or (document["p95_ms"] / 1000 if document.get("p95_ms") else None),
            first_token_p95_s=figures.get("first_token"),
            error_share=figures.get("errors"),
            fallback_share=figures.get("fallbacks"),
            engines=tuple(engine(name, engine_document) for engine_document in document["engines"]),
        )

    dated_events = tuple((datetime.fromisoformat(event["at"]), event["sentence"]) for event in events)
    firing = tuple(alert for alert in alerts if alert.state == "firing")
    return ClusterStatus(
        tuple(pool(pool_document) for pool_document in status["pools"]), firing, dated_events, tuple(problems)
    )


PROMETHEUS_OFF = "Prometheus is off (monitoring.enabled: false): no rates, no alerts"

Controller = Callable[[], tuple[dict[str, Any], list[dict[str, str]]]]
"""The controller's /status and /api/events, newest event first."""


def collect_status(controller: Controller, prometheus: PrometheusClient | None) -> ClusterStatus:
    """Queries both.

    Exceptions of `controller` are passed on; without Prometheus only the controller's part is shown.
    """
    status, events = controller()
    numbers: dict[str, list[InstantSample]] = {}
    alerts: list[ActiveAlert] = []
    problems: list[str] = []
    if prometheus is None:
        problems.append(PROMETHEUS_OFF)
    else:
        try:
            numbers = {name: prometheus.query(query) for name, query in QUERIES.items()}
            alerts = prometheus.alerts()
        except PrometheusError as error:
            problems.append(f"{error}: no rates, no alerts")
    return build_status(status, events, numbers, alerts, problems)


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
    reasons = _reasons_not_up(status, now)
    if reasons:
        parts.append(reasons)
    parts.append(_alerts(status, now))
    parts += [Text(f"!!  {sentence}", style="yellow") for sentence in status.problems]
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
            Text.assemble((pool.name, "bold"), ("\n" + _describe_pool(pool), "dim")),
            Text(pool.state, COLOURS[pool.state]),
            f"{pool.up}/{pool.total}",
            _number(pool.rps, ".1f"),
            _seconds(pool.p95_s),
            _seconds(pool.first_token_p95_s),
            Text(_percent(pool.error_share, 1), "red" if (pool.error_share or 0) >= LATE_ERRORS else ""),
        )
    return table


def _describe_pool(pool: PoolStatus) -> str:
    """The model's short name, its notice and the fallback pool."""
    parts = [pool.model.rsplit("/", 1)[-1]]
    if pool.notice:
        parts.append(pool.notice.split(",")[0])
    if pool.fallback:
        share = f" ({_percent(pool.fallback_share)} of requests)" if pool.fallback_share else ""
        parts.append(f"fallback {pool.fallback}{share}")
    return ", ".join(parts)


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
        for engine in pool.engines:
            is_full = (engine.kv_cache_share or 0) >= KV_FULL
            table.add_row(
                engine.name,
                Text(engine.state_text, ENGINE_COLOURS.get(engine.state, "blue")),
                _number(engine.in_flight, "d"),
                Text(_number(engine.hidden_queue, "d"), "yellow" if engine.hidden_queue else ""),
                _number(engine.tokens_per_s, ".0f"),
                Text(_percent(engine.kv_cache_share), "red" if is_full else ""),
                _percent(engine.gpu_share),
                _percent(engine.request_share),
            )
    return table


def _reasons_not_up(status: ClusterStatus, now: datetime) -> Text | None:
    lines = [
        Text.assemble(
            (engine.name, "bold"),
            f" {engine.reason or 'is ' + engine.state_text} ({format_age(engine.since, now)} ago)",
        )
        for pool in status.pools
        for engine in pool.engines
        if not engine.is_serving or engine.state == "suspect"
    ]
    return Text("\n").join(lines) if lines else None


def _alerts(status: ClusterStatus, now: datetime) -> RenderableType:
    if not status.alerts:
        is_known = not status.problems
        return Text(
            "no alerts are firing" if is_known else "alerts are unknown", style="green" if is_known else "yellow"
        )
    table = _table(("firing", "<"), ("for", ">"), ("severity", ">"))
    for alert in status.alerts:
        summary = alert.annotations.get("summary") or alert.annotations.get("description") or ""
        subject = ", ".join(f"{key} {alert.labels[key]}" for key in ("pool", "engine") if key in alert.labels)
        severity = alert.labels.get("severity", "")
        table.add_row(
            Text.assemble((alert.name, "bold red"), f" {summary or subject}"),
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
    for limit_s, unit_s, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def _number(value: float | None, format_spec: str) -> str:
    return UNKNOWN if value is None else format(value, format_spec)


def _seconds(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.1f} s"


def _percent(share: float | None, digits: int = 0) -> str:
    return UNKNOWN if share is None else f"{100 * share:.{digits}f}%"
