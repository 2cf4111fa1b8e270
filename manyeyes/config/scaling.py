"""Autoscaling settings of a pool: how the number of its engines follows its load."""

from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, WithJsonSchema

from manyeyes.config.fields import Section

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


def _parse_clock(value: Any) -> Any:
    """Converts minutes to a time. YAML reads 18:00 without quotes as the number 1080, but 08:00 as text."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 24 * 60:
        return f"{value // 60:02}:{value % 60:02}"
    return value


Hour = Annotated[
    str,
    StringConstraints(pattern=r"^([01]\d|2[0-3]):[0-5]\d$|^24:00$"),
    BeforeValidator(_parse_clock),
    WithJsonSchema({"type": ["string", "integer"]}),
]
EVERY_DAY: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _check_time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError) as error:  # unknown zone: KeyError; folder of zones: OSError
        raise ValueError("a time zone such as UTC or Europe/Berlin") from error
    return name


class Target(Section):
    """Target load of one engine. If several targets are set, the target that needs the most engines decides."""

    in_flight: float | None = Field(None, gt=0)
    """Requests in flight per engine, running and queued. Prefer this target, because it is proportional to the number
    of engines. If no target is set, it is a fifth of the requests that an engine can run at the same time."""
    queue_time_s: float | None = Field(None, gt=0)
    """Average time in the engines' queues, in seconds, as reported by vLLM. It has no effect until a queue builds
    up."""
    p95_s: float | None = Field(None, gt=0)
    """95th percentile of the request latency over the last minute, in seconds. It depends on the length of answers as
    well as on the load. As the only target, it removes engines only while the latency is below half of it. Set it to
    more than twice the duration of one request on an idle engine."""
    gpu: float | None = Field(None, gt=0, le=1)
    """GPU utilization, 0 to 1, from `controller.gpu_metrics_url`. A GPU that decodes for only one user also reports
    high utilization."""

    @property
    def is_unset(self) -> bool:
        return self.in_flight is self.queue_time_s is self.p95_s is self.gpu is None


class ScaleUp(Section):
    """How engines are added. It is fast, because users wait until then."""

    window_s: float = Field(15, ge=0, le=3600)
    """How long more engines must be needed before engines are added, in seconds. A shorter load spike adds none."""
    step: int = Field(2, ge=1, le=64)
    """Maximum number of engines added at a time. Engines that start together share the disk and the CPU cores."""
    cool_down_s: float = Field(15, ge=0, le=3600)
    """Pause between two additions, in seconds."""


class ScaleDown(Section):
    """How engines are removed. It is slow, because a restart takes long and the engine's caches are lost."""

    window_s: float = Field(600, ge=0, le=86_400)
    """How long fewer engines must be enough before engines are removed, in seconds. The time doubles, up to eight
    times, for each time in the last hour that engines were added again after a removal. This prevents oscillation."""
    step: int = Field(1, ge=1, le=64)
    """Maximum number of engines removed at a time."""
    cool_down_s: float = Field(120, ge=0, le=3600)
    """Pause between two removals, in seconds."""
    drain_s: float = Field(300, ge=0, le=7200)
    """How long a removed engine may finish its requests before it is stopped or put to sleep, in seconds."""


class ScheduledEngines(Section):
    """Minimum number of engines during certain hours, for a load that is known in advance."""

    engines: int = Field(ge=1)
    """Minimum number of engines."""
    days: tuple[Day, ...] = Field(EVERY_DAY, min_length=1)
    """Days of the week: mon, tue, wed, thu, fri, sat, sun."""
    begin: Hour = "00:00"
    """Start time, for example 08:00. Engines start earlier, so that they are up at this time."""
    end: Hour = "24:00"
    """End time. If it is not after `begin`, it is on the next day."""


class Scaling(Section):
    """Autoscaling of a pool: how many of its engines are up, and how engines are stopped."""

    min: int = Field(1, ge=1)
    """Minimum number of engines that are up. It is at least 1, because a request to an empty pool would wait until a
    model is loaded."""
    max: int | None = Field(None, ge=1)
    """Maximum number of engines that are up. null: all engines of the pool."""
    target: Target = Target()
    """Target load of one engine."""
    tolerance: float = Field(0.1, ge=0, le=0.5)
    """Deviation from the target that causes no change, as a fraction of the target. 0.1 is the default of
    Kubernetes."""
    scale_up: ScaleUp = ScaleUp()
    """How engines are added."""
    scale_down: ScaleDown = ScaleDown()
    """How engines are removed."""
    schedule: tuple[ScheduledEngines, ...] = ()
    """Hours with more engines than `min`. If entries overlap, the larger number applies."""
    time_zone: Annotated[str, AfterValidator(_check_time_zone)] = "UTC"
    """Time zone of `schedule`, such as Europe/Berlin."""
    actuator: Literal["containers", "sleep"] = "containers"
    """How an engine is stopped. containers: its container stops, which frees the GPU; a start takes about a minute.
    sleep: vLLM's sleep mode, which wakes up in seconds; the process stays, and with level 1 also its weights in host
    memory."""
    sleep_level: Literal[1, 2] = 1
    """1: weights move to host memory, 8 to 17 GB per engine. 2: weights are dropped and loaded again, which takes
    longer."""
    start_s: float = Field(60, ge=0, le=3600)
    """Approximate time until a stopped engine is up, in seconds (measured with a 4 B vision model: 58 s). An engine
    that takes three times as long counts as failed and is replaced by another engine."""
    wake_s: float = Field(5, ge=0, le=3600)
    """Approximate time until a sleeping engine is up, in seconds, including its warm-up request."""

    @property
    def ready_s(self) -> float:
        """Seconds from the decision to the first request."""
        return self.start_s if self.actuator == "containers" else self.wake_s
