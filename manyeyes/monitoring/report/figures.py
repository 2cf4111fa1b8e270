"""Queries Prometheus for the report. The table covers the whole time; the charts use recording rules."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from manyeyes.monitoring.prometheus_client import InstantSample, PrometheusClient, TimeSeries

CHARTS = {
    "requests": "pool:requests:rate1m",
    "p95": "pool:request_seconds:p95",
    "first_token": "pool:first_token_seconds:p95",
    "errors": "pool:errors:ratio_rate5m",
    "engines": "pool_engine:requests:rate1m",
    "waiting": "pool:waiting:sum",
    "hidden": "pool:hidden_queue:sum",
    "prefix": "pool:prefix_cache_hits:ratio_rate5m",
    "pictures": "pool:mm_cache_hits:ratio_rate5m",
    "kv": "pool_engine:kv_cache_use:max",
    "up": "pool:engines_up:sum",
    "tokens": "pool:generation_tokens:rate1m",
}
POINTS = 240
"""Points of each line: about one for every two pixels of a chart."""
MIN_STEP_S = 5.0


@dataclass(frozen=True)
class AlertSpan:
    """A span of time in Unix seconds, with the alert or mark it belongs to."""

    text: str
    start_s: float
    end_s: float
    note: str = ""


@dataclass(frozen=True)
class PoolFigures:
    """Results of one pool over the whole time. None: unknown, or no requests."""

    pool: str
    requests: float
    answered: float | None
    """Share that did not fail (5xx)."""
    answered_promised: float | None
    in_time: float | None
    """Share of the answers that met the objective."""
    in_time_promised: float | None
    objective_s: float | None
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    first_token_p95_s: float | None
    fell_back: float

    @property
    def meets_objectives(self) -> bool | None:
        """Whether both objectives are met; None without requests or without objectives."""
        pairs = ((self.answered, self.answered_promised), (self.in_time, self.in_time_promised))
        known = [seen >= promised for seen, promised in pairs if seen is not None and promised is not None]
        return all(known) if known else None


@dataclass(frozen=True)
class ReportData:
    start_s: float
    end_s: float
    step_s: float
    pools: tuple[PoolFigures, ...]
    answers: tuple[tuple[str, str, float], ...]
    """(pool, engine, requests), the engines' names in order."""
    lines: dict[str, list[TimeSeries]]
    """By the names of CHARTS."""
    alerts: tuple[AlertSpan, ...]
    marks: tuple[AlertSpan, ...]


def query_report_data(prometheus: PrometheusClient, start_s: float, end_s: float) -> ReportData:
    """Queries everything that the report shows. Raises PrometheusError."""
    seconds = round(end_s - start_s)
    step_s = max(MIN_STEP_S, seconds / POINTS)

    def over(query: str) -> list[TimeSeries]:
        return prometheus.over(query, start_s, end_s, step_s)

    def by_pool(query: str) -> dict[str, float]:
        asked = query.replace("SPAN", f"{seconds}s")
        return {one.labels.get("pool", ""): one.value for one in prometheus.now(asked)}

    pools = _pools({name: by_pool(query) for name, query in FIGURES.items()})
    place = {pool.pool: number for number, pool in enumerate(pools)}

    def in_order(lines: list[TimeSeries]) -> list[TimeSeries]:
        """Orders pools as in the table and engines by number, so that a colour has the same meaning in each chart."""
        return sorted(lines, key=lambda line: _order(place, line.labels.get("pool", ""), line.labels.get("engine", "")))

    return ReportData(
        start_s=start_s,
        end_s=end_s,
        step_s=step_s,
        pools=pools,
        answers=_answers(prometheus.now(ANSWERS.replace("SPAN", f"{seconds}s")), place),
        lines={name: in_order(over(query)) for name, query in CHARTS.items()},
        alerts=_alerts(over('ALERTS{alertstate="firing"}'), step_s),
        marks=tuple(
            AlertSpan(line.labels.get("text", ""), start, end)
            for line in over("manyeyes_annotation")
            for start, end in alert_spans(line.points, step_s)
        ),
    )


def _increase(metric: str, where: str = "", by: str = "pool") -> str:
    return f"sum by ({by}) (increase({metric}{where}[SPAN]))"


def _quantile(share: float, histogram: str) -> str:
    return f"histogram_quantile({share}, {_increase(f'{histogram}_bucket', by='pool, le')})"


FIGURES = {
    "requests": _increase("manyeyes_requests_total"),
    "failed": _increase("manyeyes_requests_total", '{status=~"5.."}'),
    "counted": _increase("manyeyes_requests_total", '{status=~"[235].."}'),
    "answered": _increase("manyeyes_requests_total", '{status=~"[23].."}'),
    "in_time": _increase("manyeyes_requests_within_slo_total"),
    "fell_back": _increase("manyeyes_fallbacks_total"),
    "p50": _quantile(0.5, "manyeyes_request_duration_seconds"),
    "p95": _quantile(0.95, "manyeyes_request_duration_seconds"),
    "p99": _quantile(0.99, "manyeyes_request_duration_seconds"),
    "first_token_p95": _quantile(0.95, "vllm:time_to_first_token_seconds"),
    "success_promised": "manyeyes_slo_availability_ratio",
    "in_time_promised": "manyeyes_slo_latency_objective_ratio",
    "objective_s": "manyeyes_slo_latency_seconds",
}
ANSWERS = _increase("manyeyes_requests_total", '{engine!=""}', "pool, engine")
MIN_REQUESTS = 0.5
"""`increase` extrapolates, so less than half a request counts as none."""


def _pools(found: dict[str, dict[str, float]]) -> tuple[PoolFigures, ...]:
    # Requests that were refused before a pool was chosen have no pool.
    known = {name for name in (*found["success_promised"], *found["requests"]) if name}
    names = sorted(known, key=lambda name: (-found["requests"].get(name, 0.0), name))
    return tuple(
        _pool_figures(name, {key: values[name] for key, values in found.items() if name in values}) for name in names
    )


def _pool_figures(pool: str, seen: dict[str, float]) -> PoolFigures:
    counted, answered = seen.get("counted", 0.0), seen.get("answered", 0.0)
    return PoolFigures(
        pool=pool,
        requests=seen.get("requests", 0.0),
        answered=1 - seen.get("failed", 0.0) / counted if counted >= MIN_REQUESTS else None,
        answered_promised=seen.get("success_promised"),
        in_time=min(1.0, seen.get("in_time", 0.0) / answered) if answered >= MIN_REQUESTS else None,
        in_time_promised=seen.get("in_time_promised"),
        objective_s=seen.get("objective_s"),
        p50_s=seen.get("p50"),
        p95_s=seen.get("p95"),
        p99_s=seen.get("p99"),
        first_token_p95_s=seen.get("first_token_p95"),
        fell_back=seen.get("fell_back", 0.0),
    )


def _answers(found: Sequence[InstantSample], place: dict[str, int]) -> tuple[tuple[str, str, float], ...]:
    rows = [(one.labels["pool"], one.labels["engine"], one.value) for one in found]
    return tuple(sorted(rows, key=lambda row: _order(place, row[0], row[1])))


def _order(place: dict[str, int], pool: str, engine: str) -> tuple[int, str, int, str]:
    """Sort key; gpu-2 comes before gpu-10."""
    return place.get(pool, len(place)), pool, len(engine), engine


def _alerts(lines: Sequence[TimeSeries], step_s: float) -> tuple[AlertSpan, ...]:
    """Each span in which an alert fired, latest first."""
    made = [
        AlertSpan(
            line.labels.get("alertname", "?"),
            start,
            end,
            ", ".join(line.labels[key] for key in ("pool", "engine", "gpu", "severity") if key in line.labels),
        )
        for line in lines
        for start, end in alert_spans(line.points, step_s)
    ]
    return tuple(sorted(made, key=lambda span: span.start_s, reverse=True))


def alert_spans(points: Sequence[tuple[float, float]], step_s: float) -> list[tuple[float, float]]:
    """The spans with samples. A series that reappears begins another span."""
    found: list[tuple[float, float]] = []
    for at, _ in points:
        if found and at - found[-1][1] <= 2.5 * step_s:
            found[-1] = (found[-1][0], at)
        else:
            found.append((at, at))
    return found


NO_REQUESTS = "no requests"


def verdict(about: ReportData) -> tuple[str, bool | None]:
    """The headline, and whether all objectives are met; None without requests."""
    asked = [pool for pool in about.pools if pool.meets_objectives is not None]
    missed = [pool for pool in asked if pool.meets_objectives is False]
    if not asked:
        return "No requests", None
    if not missed:
        return "All objectives met", True
    names = ", ".join(pool.pool for pool in missed)
    return f"Objective{'' if len(missed) == 1 else 's'} missed: {names}", False


def period(about: ReportData) -> str:
    """Start and end, in the host's time zone."""
    start, end = (datetime.fromtimestamp(at).astimezone() for at in (about.start_s, about.end_s))
    same_day = start.date() == end.date()
    return f"{start:%d %B %Y, %H:%M} to {format(end, '%H:%M' if same_day else '%d %B, %H:%M')} {end:%Z}"


def cards(about: ReportData) -> list[tuple[str, str]]:
    """(figure, description) of each card."""
    requests = sum(pool.requests for pool in about.pools)
    hours = (about.end_s - about.start_s) / 3600
    worst = max((pool.p95_s for pool in about.pools if pool.p95_s is not None), default=None)
    answered, in_time = _mean(about, "answered"), _mean(about, "in_time")
    return [
        (format_count(requests), f"requests, {requests / hours / 3600:.1f} per second"),
        (format_percent(answered), "answered without 5xx"),
        (format_percent(in_time), "of the answers within their objective"),
        (format_seconds(worst), "P95 of complete answers, slowest pool"),
        (str(len(about.alerts)), "times an alert fired" if len(about.alerts) != 1 else "time an alert fired"),
    ]


def _mean(about: ReportData, figure: str) -> float | None:
    """Mean over all pools, weighted by their requests."""
    known = [(getattr(pool, figure), pool.requests) for pool in about.pools if getattr(pool, figure) is not None]
    weight = sum(requests for _, requests in known)
    return sum(value * requests for value, requests in known) / weight if weight else None


def row(pool: PoolFigures) -> list[tuple[str, str, str]]:
    """(figure, objective, CSS class) of each column."""
    kept = {True: ("met", "good"), False: ("missed", "bad"), None: (NO_REQUESTS, "")}[pool.meets_objectives]
    return [
        (format_count(pool.requests), "", ""),
        (
            format_percent(pool.answered),
            _promised(pool.answered_promised),
            _class(pool.answered, pool.answered_promised),
        ),
        (
            format_percent(pool.in_time),
            _promised(pool.in_time_promised) + (f" in\u00a0{pool.objective_s:g}\u00a0s" if pool.objective_s else ""),
            _class(pool.in_time, pool.in_time_promised),
        ),
        (format_seconds(pool.p50_s), "", ""),
        (format_seconds(pool.p95_s), "", ""),
        (format_seconds(pool.p99_s), "", ""),
        (format_seconds(pool.first_token_p95_s), "", ""),
        (format_count(pool.fell_back), "", ""),
        (kept[0], "", kept[1]),
    ]


COLUMNS = ("requests", "answered", "in time", "P50", "P95", "P99", "TTFT P95", "fallbacks", "objective")


def _promised(share: float | None) -> str:
    return f"objective {100 * share:g}\u00a0%" if share is not None else ""


def _class(seen: float | None, promised: float | None) -> str:
    return "bad" if seen is not None and promised is not None and seen < promised else ""


def format_count(value: float) -> str:
    return f"{value:,.0f}"


def format_percent(share: float | None) -> str:
    """Never rounds up to 100 %."""
    if share is None:
        return "–"
    digits = 1 if share < 0.999 else 2
    shown = f"{100 * share:.{digits}f}"
    return "99.99 %" if share < 1 and float(shown) == 100 else f"{shown if share < 1 else '100'} %"


def format_seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.2f} s" if value < 10 else f"{value:.0f} s"


def format_duration(value: float) -> str:
    if value < 120:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"
