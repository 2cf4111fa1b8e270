"""What the controller and Prometheus say, asked for and put together as `make status` shows it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from manyeyes.monitoring.prometheus_client import ActiveAlert, InstantSample, PrometheusClient, PrometheusError

SERVES = frozenset({"up", "suspect", "remote"})
STATE_WORDS = {
    "unknown": "not yet known",
    "starting": "starting",
    "warming": "warming up",
    "up": "up",
    "suspect": "up, in doubt",
    "draining": "draining",
    "sleeping": "asleep",
    "down": "DOWN",
    "remote": "elsewhere",
}
"""The controller's states (manyeyes/controller/health/state_machine.py) for people."""


@dataclass(frozen=True)
class EngineStatus:
    """One row. None is not known."""

    name: str
    pool: str
    state: str
    since: datetime
    reason: str
    """Why it is in its state; empty when nothing was said yet."""
    in_flight: int | None
    hidden_queue: int | None
    tokens_per_s: float | None
    kv_cache_share: float | None
    gpu_share: float | None
    """Use of its GPUs, 0 to 1, as DCGM says."""
    request_share: float | None
    """Its part of what its pool's engines answered."""

    @property
    def serves(self) -> bool:
        return self.state in SERVES

    @property
    def words(self) -> str:
        return STATE_WORDS.get(self.state, self.state)


@dataclass(frozen=True)
class PoolStatus:
    """One row. None is not known, or nobody asked."""

    name: str
    model: str
    notice: str
    up: int
    total: int
    fallback: str
    """The pool that stands in; empty for none."""
    rps: float | None
    p95_s: float | None
    first_token_p95_s: float | None
    error_share: float | None
    fallback_share: float | None
    engines: tuple[EngineStatus, ...]

    @property
    def state(self) -> str:
        """One word for how its users are served."""
        if self.up == 0:
            return "on fallback" if self.fallback else "EMPTY"
        return "all up" if self.up == self.total else "short"


@dataclass(frozen=True)
class ClusterStatus:
    """All of it at one moment."""

    pools: tuple[PoolStatus, ...]
    alerts: tuple[ActiveAlert, ...]
    events: tuple[tuple[datetime, str], ...]
    """Newest first."""
    trouble: tuple[str, ...] = ()
    """What could not be asked, each a sentence."""

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
"""What Prometheus is asked, by name: the series that the dashboards draw (manyeyes/monitoring/prometheus/recording.py)."""


def build_status(
    status: Mapping[str, Any],
    events: Sequence[Mapping[str, str]],
    numbers: Mapping[str, Sequence[InstantSample]],
    alerts: Sequence[ActiveAlert],
    trouble: Sequence[str] = (),
) -> ClusterStatus:
    """`numbers` are the answers to QUERIES, empty where Prometheus is off."""
    by_pool = {name: {one.labels.get("pool", ""): one.value for one in found} for name, found in numbers.items()}
    shares = {one.labels.get("engine", ""): one.value for one in numbers.get("share", ())}
    gpus = {one.labels.get("gpu", ""): one.value for one in numbers.get("gpu", ())}

    def engine(pool: str, one: Mapping[str, Any]) -> EngineStatus:
        # What an engine that is down said last is not what it does.
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
        told = {key: found.get(name) for key, found in by_pool.items()}
        return PoolStatus(
            name=name,
            model=one["model"],
            notice=one.get("notice") or "",
            up=one["up"],
            total=one["total"],
            fallback=one.get("fallback") or "",
            rps=told.get("rps"),
            p95_s=_first(told.get("p95"), _seconds(one.get("p95_ms"))),
            first_token_p95_s=told.get("first_token"),
            error_share=told.get("errors"),
            fallback_share=told.get("fallbacks"),
            engines=tuple(engine(name, each) for each in one["engines"]),
        )

    told = tuple((datetime.fromisoformat(event["at"]), event["sentence"]) for event in events)
    firing = tuple(alert for alert in alerts if alert.state == "firing")
    return ClusterStatus(tuple(pool(one) for one in status["pools"]), firing, told, tuple(trouble))


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


OFF = "Prometheus is off (monitoring.enabled: false): no rates, no alerts"

Controller = Callable[[], tuple[dict[str, Any], list[dict[str, str]]]]
"""The controller's /status and /api/events, newest event first."""


def collect_status(controller: Controller, prometheus: PrometheusClient | None) -> ClusterStatus:
    """Whatever `controller` raises goes through; without Prometheus the controller's part is shown alone."""
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
