"""Decides an engine's lifecycle stage, and which engines to start and stop to reach the desired count. Pure.

The stages are stopped -> starting -> serving -> draining -> stopped. A starting engine counts as serving, because it
will serve soon. A draining engine is undrained before another engine is started, because its caches are warm.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from manyeyes.controller.health.states import EngineState


class LifecycleStage(Enum):
    """The stage of an engine, from the autoscaler's point of view."""

    SERVING = "serving"
    STARTING = "starting"
    """Started or woken, and not up yet."""
    DRAINING = "draining"
    """Drained by the autoscaler: it finishes its requests, then it is stopped or put to sleep."""
    STOPPED = "stopped"
    UNAVAILABLE = "unavailable"
    """Started but not usable: down, drained by an operator, or not up long after its start. It is replaced."""


@dataclass(frozen=True, slots=True)
class ScaledEngine:
    name: str
    stage: LifecycleStage
    in_flight: int | None = 0
    """None means unknown."""
    since_s: float = 0.0
    """When it entered its stage."""
    blocked: bool = False
    """It cannot be started: an engine of another pool uses its GPU, or the controller cannot control it."""
    waited_for: bool = False
    """Another pool needs its GPU."""
    fixed: bool = False
    """The controller cannot stop it."""


@dataclass(frozen=True, slots=True)
class MovePlan:
    """The changes of one pass, by engine name."""

    undrain: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    drain: tuple[str, ...] = ()
    rest: tuple[str, ...] = ()
    """Engines to stop or to put to sleep."""
    missing: int = 0
    """Number of desired engines that cannot be started."""


def plan_moves(
    engines: Sequence[ScaledEngine], desired: int, now_s: float, drain_s: float, settle_s: float
) -> MovePlan:
    """Plans the changes of one pass. `engines` are in file order.

    A draining engine is stopped when it is idle, or after `drain_s`. It is not stopped before `settle_s`, because the
    gateway may still send requests to it.
    """
    starting = [engine for engine in engines if engine.stage is LifecycleStage.STARTING]
    serving = [engine for engine in engines if engine.stage is LifecycleStage.SERVING]
    draining = sorted(
        (engine for engine in engines if engine.stage is LifecycleStage.DRAINING),
        key=lambda engine: -(engine.in_flight or 0),
    )
    lacking = max(0, desired - len(serving) - len(starting))
    undrain = draining[:lacking]
    able = [engine for engine in engines if engine.stage is LifecycleStage.STOPPED and not engine.blocked]
    start = able[: lacking - len(undrain)]
    drain = _to_drain(serving, len(serving) - desired)
    rest = [engine for engine in draining[lacking:] if _is_done(engine, now_s, drain_s, settle_s)]
    return MovePlan(
        undrain=_names(undrain),
        start=_names(start),
        drain=_names(drain),
        rest=_names(rest),
        missing=lacking - len(undrain) - len(start),
    )


def _to_drain(serving: Sequence[ScaledEngine], surplus: int) -> list[ScaledEngine]:
    """The engines to drain: those with the fewest requests, and among equals the later ones in the file.

    So the first engines keep their conversations for days. Starting engines do not count here, so the last serving
    engine is never drained.
    """
    able = [(place, engine) for place, engine in enumerate(serving) if not engine.fixed]
    unknown = float("inf")
    able.sort(
        key=lambda candidate: (
            not candidate[1].waited_for,
            unknown if candidate[1].in_flight is None else candidate[1].in_flight,
            -candidate[0],
        )
    )
    return [engine for _, engine in able[: max(0, min(surplus, len(serving) - 1))]]


def _is_done(engine: ScaledEngine, now_s: float, drain_s: float, settle_s: float) -> bool:
    drained_s = now_s - engine.since_s
    return drained_s >= drain_s or (engine.in_flight == 0 and drained_s >= settle_s)


def _names(engines: Sequence[ScaledEngine]) -> tuple[str, ...]:
    return tuple(engine.name for engine in engines)


START_TIMEOUT_FACTOR = 3
"""An engine counts as broken when its start takes this many times longer than expected."""
SHORTEST_START_TIMEOUT_S = 30.0


class ActuatorCall(Enum):
    """A call to the actuator that is in progress."""

    STARTING = "starting"
    RESTING = "resting"


@dataclass(frozen=True, slots=True)
class EngineFacts:
    state: EngineState
    serves: bool
    """It is up, whether it is drained or not."""
    drained: bool
    draining: bool = False
    """Drained by the autoscaler, to be stopped when it is idle."""
    at_rest: bool = False
    moving: ActuatorCall | None = None
    out_for_s: float = 0.0
    """Time since it last served, or since it was started."""
    started: bool = False
    """The autoscaler started it, and it has not been up since."""


def lifecycle_stage(facts: EngineFacts, ready_s: float, blip_s: float) -> LifecycleStage:
    """Decides the stage.

    `ready_s` is the expected start time. Outages shorter than `blip_s` do not trigger a replacement.
    """
    if facts.drained and not facts.draining and facts.moving is None:
        return LifecycleStage.UNAVAILABLE  # drained by an operator
    if facts.moving is ActuatorCall.STARTING:
        return LifecycleStage.STARTING
    if facts.moving is ActuatorCall.RESTING or facts.at_rest:
        return LifecycleStage.STOPPED
    if facts.draining:
        return LifecycleStage.DRAINING
    if facts.serves:
        return LifecycleStage.SERVING
    patience_s = max(SHORTEST_START_TIMEOUT_S, START_TIMEOUT_FACTOR * ready_s)
    if facts.state is EngineState.DOWN and not facts.started:
        patience_s = blip_s
    return LifecycleStage.STARTING if facts.out_for_s < patience_s else LifecycleStage.UNAVAILABLE
