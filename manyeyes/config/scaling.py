"""How the number of a pool's engines follows its load. Null in a pool: all its engines always run."""

from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, WithJsonSchema

from manyeyes.config.fields import Section

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


def _clock(value: Any) -> Any:
    """YAML reads 18:00 without quotes as the number 1080, of minutes; and 08:00 as text."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 24 * 60:
        return f"{value // 60:02}:{value % 60:02}"
    return value


Hour = Annotated[
    str,
    StringConstraints(pattern=r"^([01]\d|2[0-3]):[0-5]\d$|^24:00$"),
    BeforeValidator(_clock),
    WithJsonSchema({"type": ["string", "integer"]}),
]
EVERY_DAY: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError) as error:  # an unknown one is a KeyError, a folder of them an OSError
        raise ValueError("a time zone such as UTC or Europe/Berlin") from error
    return name


class Target(Section):
    """What one engine should have to do. The measure that asks for most engines wins; with none of them it is `in_flight`."""

    in_flight: float | None = Field(None, gt=0)
    """Requests per engine, those that run and those that wait. The one that is proportional to the number of engines, so
    the one to prefer. null with all the others null too: a fifth of what an engine runs at once."""
    queue_time_s: float | None = Field(None, gt=0)
    """Seconds that requests wait in the engines' queues on average (vLLM's own figure). Says nothing before a queue is there."""
    p95_s: float | None = Field(None, gt=0)
    """Seconds that 95 % of requests take at most, over the last minute. Follows the length of answers as well as the load. Alone,
    it takes engines out only while it is below half of this, so it must be more than twice what one request takes alone."""
    gpu: float | None = Field(None, gt=0, le=1)
    """Busy part of the GPUs, 0 to 1, from `controller.gpu_metrics_url`. A GPU that decodes for one user looks busy too."""

    @property
    def is_unset(self) -> bool:
        return self.in_flight is self.queue_time_s is self.p95_s is self.gpu is None


class ScaleUp(Section):
    """Adding engines: soon, because users wait meanwhile."""

    window_s: float = Field(15, ge=0, le=3600)
    """More engines must have been needed for all of this time: a spike that is shorter starts none."""
    step: int = Field(2, ge=1, le=64)
    """Engines added at a time, at most. Engines that start together share the disk and the cores."""
    cool_down_s: float = Field(15, ge=0, le=3600)
    """Pause between two additions."""


class ScaleDown(Section):
    """Taking engines out: late, because starting one again takes long and its caches are lost."""

    window_s: float = Field(600, ge=0, le=86_400)
    """Fewer engines must have been enough for all of this time. Doubled for every time in the last hour that engines had to
    be added again after some were taken out, up to eight times as long, so that a load between two sizes does not swing."""
    step: int = Field(1, ge=1, le=64)
    """Engines taken out at a time, at most."""
    cool_down_s: float = Field(120, ge=0, le=3600)
    """Pause between taking out two."""
    drain_s: float = Field(300, ge=0, le=7200)
    """An engine that is taken out may finish its answers for so long before it is stopped or put to sleep."""


class ScheduledEngines(Section):
    """At least so many engines at certain hours, for a load that is known to come."""

    engines: int = Field(ge=1)
    """How many at least."""
    days: tuple[Day, ...] = Field(EVERY_DAY, min_length=1)
    """On which days: mon, tue, wed, thu, fri, sat, sun."""
    begin: Hour = "00:00"
    """From this time on, as 08:00. Engines are started so much earlier that they are up by then."""
    end: Hour = "24:00"
    """Until this time. At or before `begin`: until that time on the next day."""


class Scaling(Section):
    """How many engines of the pool are up, and how the others rest."""

    min: int = Field(1, ge=1)
    """Engines that are always up. At least one: the first request of an empty pool would wait for a model to load."""
    max: int | None = Field(None, ge=1)
    """Engines that are up at most. null: all of the pool's."""
    target: Target = Target()
    """What one engine should have to do."""
    tolerance: float = Field(0.1, ge=0, le=0.5)
    """Part of the target by which the load may differ before anything changes (0.1 is what Kubernetes takes)."""
    scale_up: ScaleUp = ScaleUp()
    """Adding engines."""
    scale_down: ScaleDown = ScaleDown()
    """Taking engines out."""
    schedule: tuple[ScheduledEngines, ...] = ()
    """Hours with more engines than `min`. Where two overlap, the larger number counts."""
    time_zone: Annotated[str, AfterValidator(_known_zone)] = "UTC"
    """Time zone of `schedule`, such as Europe/Berlin."""
    actuator: Literal["containers", "sleep"] = "containers"
    """How an engine rests. containers: stopped; it frees its GPU and takes about a minute to start. sleep: vLLM's sleep mode;
    seconds, but the process and (level 1) its weights in host memory stay."""
    sleep_level: Literal[1, 2] = 1
    """1: weights move to host memory, 8 to 17 GB an engine. 2: weights are dropped and read again, which takes longer."""
    start_s: float = Field(60, ge=0, le=3600)
    """About how long a stopped engine takes until it is up (measured for a 4 B vision model: 58 s). An engine that takes three
    times as long counts as broken, and another one is started for it."""
    wake_s: float = Field(5, ge=0, le=3600)
    """About how long a sleeping engine takes until it is up, its warm-up picture included."""

    @property
    def ready_s(self) -> float:
        """From the decision to the first request."""
        return self.start_s if self.actuator == "containers" else self.wake_s
