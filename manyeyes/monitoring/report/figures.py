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
    "images": "pool:mm_cache_hits:ratio_rate5m",
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
    fallbacks: float

    @property
    def meets_objectives(self) -> bool | None:
        """Whether both objectives are met; None without requests or without objectives."""
        pairs = ((self.answered, self.answered_promised), (self.in_time, self.in_time_promised))
        results = [value >= promised for value, promised in pairs if value is not None and promised is not None]
        return all(results) if results else None


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

    def query_range(query: str) -> list[TimeSeries]:
        return prometheus.query_range(query, start_s, end_s, step_s)

    def by_pool(query: str) -> dict[str, float]:
        expanded = query.replace("SPAN", f"{seconds}s")
        return {sample.labels.get("pool", ""): sample.value for sample in prometheus.query(expanded)}

    pools = _pools({name: by_pool(query) for name, query in FIGURES.items()})
    pool_order = {pool.pool: number for number, pool in enumerate(pools)}

    def in_order(series_list: list[TimeSeries]) -> list[TimeSeries]:
        """Orders pools as in the table and engines by number, so that a colour has the same meaning in each chart."""
        return sorted(
            series_list,
            key=lambda series: _order(pool_order, series.labels.get("pool", ""), series.labels.get("engine", "")),
        )

    return ReportData(
        start_s=start_s,
        end_s=end_s,
        step_s=step_s,
        pools=pools,
        answers=_answers(prometheus.query(ANSWERS.replace("SPAN", f"{seconds}s")), pool_order),
        lines={name: in_order(query_range(query)) for name, query in CHARTS.items()},
        alerts=_alerts(query_range('ALERTS{alertstate="firing"}'), step_s),
        marks=tuple(
            AlertSpan(series.labels.get("text", ""), start, end)
            for series in query_range("manyeyes_annotation")
            for start, end in alert_spans(series.points, step_s)
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
    "fallbacks": _increase("manyeyes_fallbacks_total"),
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


def _pools(figures: dict[str, dict[str, float]]) -> tuple[PoolFigures, ...]:
    # Requests that were refused before a pool was chosen have no pool.
    pool_names = {name for name in (*figures["success_promised"], *figures["requests"]) if name}
    names = sorted(pool_names, key=lambda name: (-figures["requests"].get(name, 0.0), name))
    return tuple(
        _pool_figures(name, {key: values[name] for key, values in figures.items() if name in values}) for name in names
    )


def _pool_figures(pool: str, values: dict[str, float]) -> PoolFigures:
    counted, answered = values.get("counted", 0.0), values.get("answered", 0.0)
    return PoolFigures(
        pool=pool,
        requests=values.get("requests", 0.0),
        answered=1 - values.get("failed", 0.0) / counted if counted >= MIN_REQUESTS else None,
        answered_promised=values.get("success_promised"),
        in_time=min(1.0, values.get("in_time", 0.0) / answered) if answered >= MIN_REQUESTS else None,
        in_time_promised=values.get("in_time_promised"),
        objective_s=values.get("objective_s"),
        p50_s=values.get("p50"),
        p95_s=values.get("p95"),
        p99_s=values.get("p99"),
        first_token_p95_s=values.get("first_token_p95"),
        fallbacks=values.get("fallbacks", 0.0),
    )


def _answers(samples: Sequence[InstantSample], pool_order: dict[str, int]) -> tuple[tuple[str, str, float], ...]:
    rows = [(sample.labels["pool"], sample.labels["engine"], sample.value) for sample in samples]
    return tuple(sorted(rows, key=lambda row: _order(pool_order, row[0], row[1])))


def _order(pool_order: dict[str, int], pool: str, engine: str) -> tuple[int, str, int, str]:
    """Sort key; gpu-2 comes before gpu-10."""
    return pool_order.get(pool, len(pool_order)), pool, len(engine), engine


def _alerts(lines: Sequence[TimeSeries], step_s: float) -> tuple[AlertSpan, ...]:
    """Each span in which an alert fired, latest first."""
    spans = [
        AlertSpan(
            line.labels.get("alertname", "?"),
            start,
            end,
            ", ".join(line.labels[key] for key in ("pool", "engine", "gpu", "severity") if key in line.labels),
        )
        for line in lines
        for start, end in alert_spans(line.points, step_s)
    ]
    return tuple(sorted(spans, key=lambda span: span.start_s, reverse=True))


def alert_spans(points: Sequence[tuple[float, float]], step_s: float) -> list[tuple[float, float]]:
    """The spans with samples. A series that reappears begins another span."""
    spans: list[tuple[float, float]] = []
    for at, _ in points:
        if spans and at - spans[-1][1] <= 2.5 * step_s:
            spans[-1] = (spans[-1][0], at)
        else:
            spans.append((at, at))
    return spans


NO_REQUESTS = "no requests"


def verdict(report_data: ReportData) -> tuple[str, bool | None]:
    """The headline, and whether all objectives are met; None without requests."""
    measured = [pool for pool in report_data.pools if pool.meets_objectives is not None]
    missed = [pool for pool in measured if pool.meets_objectives is False]
    if not measured:
        return "No requests", None
    if not missed:
        return "All objectives met", True
    names = ", ".join(pool.pool for pool in missed)
    return f"Objective{'' if len(missed) == 1 else 's'} missed: {names}", False


def period(report_data: ReportData) -> str:
    """Start and end, in the host's time zone."""
    start, end = (datetime.fromtimestamp(at).astimezone() for at in (report_data.start_s, report_data.end_s))
    same_day = start.date() == end.date()
    return f"{start:%d %B %Y, %H:%M} to {format(end, '%H:%M' if same_day else '%d %B, %H:%M')} {end:%Z}"


def cards(report_data: ReportData) -> list[tuple[str, str]]:
    """(figure, description) of each card."""
    requests = sum(pool.requests for pool in report_data.pools)
    hours = (report_data.end_s - report_data.start_s) / 3600
    slowest_s = max((pool.p95_s for pool in report_data.pools if pool.p95_s is not None), default=None)
    answered, in_time = _mean(report_data, "answered"), _mean(report_data, "in_time")
    return [
        (format_count(requests), f"requests, {requests / hours / 3600:.1f} per second"),
        (format_percent(answered), "answered without 5xx"),
        (format_percent(in_time), "of the answers within their objective"),
        (format_seconds(slowest_s), "P95 of complete answers, slowest pool"),
        (
            str(len(report_data.alerts)),
            "times an alert fired" if len(report_data.alerts) != 1 else "time an alert fired",
        ),
    ]


def _mean(report_data: ReportData, figure: str) -> float | None:
    """Mean over all pools, weighted by their requests."""
    values = [(getattr(pool, figure), pool.requests) for pool in report_data.pools if getattr(pool, figure) is not None]
    weight = sum(requests for _, requests in values)
    return sum(value * requests for value, requests in values) / weight if weight else None


def row(pool: PoolFigures) -> list[tuple[str, str, str]]:
    """(figure, objective, CSS class) of each column."""
    verdict_text = {True: ("met", "good"), False: ("missed", "bad"), None: (NO_REQUESTS, "")}[pool.meets_objectives]
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
        (format_count(pool.fallbacks), "", ""),
        (verdict_text[0], "", verdict_text[1]),
    ]


COLUMNS = ("requests", "answered", "in time", "P50", "P95", "P99", "TTFT P95", "fallbacks", "objective")


def _promised(share: float | None) -> str:
    return f"objective {100 * share:g}\u00a0%" if share is not None else ""


def _class(value: float | None, promised: float | None) -> str:
    return "bad" if value is not None and promised is not None and value < promised else ""


def format_count(value: float) -> str:
    return f"{value:,.0f}"


def format_percent(share: float | None) -> str:
    """Never rounds up to 100 %."""
    if share is None:
        return "–"
    digits = 1 if share < 0.999 else 2
    text = f"{100 * share:.{digits}f}"
    return "99.99 %" if share < 1 and float(text) == 100 else f"{text if share < 1 else '100'} %"


def format_seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.2f} s" if value < 10 else f"{value:.0f} s"


def format_duration(value: float) -> str:
    if value < 120:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"
