"""What the report says in sentences and short figures. Pure."""

from datetime import datetime

from manyeyes.monitoring.report.queries import PoolFigures, ReportData

NO_REQUESTS = "nobody asked"


def verdict(about: ReportData) -> tuple[str, bool | None]:
    """The headline, and whether it is good news."""
    asked = [pool for pool in about.pools if pool.meets_objectives is not None]
    missed = [pool for pool in asked if pool.meets_objectives is False]
    if not asked:
        return "Nobody asked anything", None
    if not missed:
        return "Users were well", True
    names = ", ".join(pool.pool for pool in missed)
    return f"Users were not well: {names} missed {'its' if len(missed) == 1 else 'their'} objective", False


def period(about: ReportData) -> str:
    """From when to when, in the host's time zone."""
    start, end = (datetime.fromtimestamp(at).astimezone() for at in (about.start_s, about.end_s))
    same_day = start.date() == end.date()
    return f"{start:%d %B %Y, %H:%M} to {format(end, '%H:%M' if same_day else '%d %B, %H:%M')} {end:%Z}"


def cards(about: ReportData) -> list[tuple[str, str]]:
    """A figure and what it is."""
    requests = sum(pool.requests for pool in about.pools)
    hours = (about.end_s - about.start_s) / 3600
    worst = max((pool.p95_s for pool in about.pools if pool.p95_s is not None), default=None)
    answered, in_time = _mean(about, "answered"), _mean(about, "in_time")
    return [
        (format_count(requests), f"requests, {requests / hours / 3600:.1f} a second"),
        (format_percent(answered), "answered: no 5xx"),
        (format_percent(in_time), "of the answers within their objective"),
        (format_seconds(worst), "P95 of whole answers, slowest pool"),
        (str(len(about.alerts)), "times an alert fired" if len(about.alerts) != 1 else "time an alert fired"),
    ]


def _mean(about: ReportData, figure: str) -> float | None:
    """Over pools, by their requests."""
    known = [(getattr(pool, figure), pool.requests) for pool in about.pools if getattr(pool, figure) is not None]
    weight = sum(requests for _, requests in known)
    return sum(value * requests for value, requests in known) / weight if weight else None


def row(pool: PoolFigures) -> list[tuple[str, str, str]]:
    """(figure, what was promised, class) of each column."""
    kept = {True: ("kept", "good"), False: ("missed", "bad"), None: (NO_REQUESTS, "")}[pool.meets_objectives]
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


COLUMNS = ("requests", "answered", "in time", "P50", "P95", "P99", "TTFT P95", "fell back", "objective")


def _promised(share: float | None) -> str:
    return f"promised {100 * share:g}\u00a0%" if share is not None else ""


def _class(seen: float | None, promised: float | None) -> str:
    return "bad" if seen is not None and promised is not None and seen < promised else ""


def format_count(value: float) -> str:
    return f"{value:,.0f}"


def format_percent(share: float | None) -> str:
    """Never 100 % when something is missing from it."""
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
