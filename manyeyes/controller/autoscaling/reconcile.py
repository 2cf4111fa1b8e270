"""An engine's lifecycle stage, and which engines to start and stop so that as many serve as are wanted. Pure.

off -> starting -> serving -> draining -> off: a started engine counts as one that serves, because it will soon; one that goes is taken back
before another is started, because its caches are warm.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from manyeyes.controller.health.states import EngineState


class LifecycleStage(Enum):
    """Where an engine is, as far as scaling goes."""

    SERVING = "serving"
    STARTING = "coming"
    """Started or woken, and not up yet."""
    DRAINING = "going"
    """Held back by scaling: finishes what it has, then it is stopped or put to sleep."""
    STOPPED = "off"
    UNAVAILABLE = "away"
    """Started and of no use: down, held back by a person, or still not up long after its start. Another one stands in for it."""


@dataclass(frozen=True, slots=True)
class ScaledEngine:
    name: str
    stage: LifecycleStage
    in_flight: int | None = 0
    """None: not known."""
    since_s: float = 0.0
    """When it entered its stage."""
    blocked: bool = False
    """It is off, and its GPU is taken by the engine of another pool, or nobody here can start it."""
    waited_for: bool = False
    """Another pool needs its GPU."""
    fixed: bool = False
    """Nobody here can stop it."""


@dataclass(frozen=True, slots=True)
class MovePlan:
    """What to do at once, by engines' names."""

    take_back: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    hold: tuple[str, ...] = ()
    rest: tuple[str, ...] = ()
    """Stop, or put to sleep."""
    missing: int = 0
    """Engines that are wanted and cannot be had."""


def plan_moves(engines: Sequence[ScaledEngine], wanted: int, now_s: float, drain_s: float, settle_s: float) -> MovePlan:
    """`engines` in the order of the file. One that is held rests when it is idle, or after `drain_s`; not before `settle_s`,
    while the gateway may not have heard of it yet."""
    starting = [engine for engine in engines if engine.stage is LifecycleStage.STARTING]
    serving = [engine for engine in engines if engine.stage is LifecycleStage.SERVING]
    draining = sorted(
        (engine for engine in engines if engine.stage is LifecycleStage.DRAINING),
        key=lambda engine: -(engine.in_flight or 0),
    )
    lacking = max(0, wanted - len(serving) - len(starting))
    back = draining[:lacking]
    able = [engine for engine in engines if engine.stage is LifecycleStage.STOPPED and not engine.blocked]
    start = able[: lacking - len(back)]
    hold = _to_hold(serving, len(serving) - wanted)
    rest = [engine for engine in draining[lacking:] if _is_done(engine, now_s, drain_s, settle_s)]
    return MovePlan(
        take_back=_names(back),
        start=_names(start),
        hold=_names(hold),
        rest=_names(rest),
        missing=lacking - len(back) - len(start),
    )


def _to_hold(serving: Sequence[ScaledEngine], surplus: int) -> list[ScaledEngine]:
    """Those with the least to do, later ones in the file first: so the first ones keep their conversations over days.

    Engines that are starting do not count here, so the last one up is never held.
    """
    able = [(place, engine) for place, engine in enumerate(serving) if not engine.fixed]
    unknown = float("inf")
    able.sort(
        key=lambda one: (
            not one[1].waited_for,
            unknown if one[1].in_flight is None else one[1].in_flight,
            -one[0],
        )
    )
    return [engine for _, engine in able[: max(0, min(surplus, len(serving) - 1))]]


def _is_done(engine: ScaledEngine, now_s: float, drain_s: float, settle_s: float) -> bool:
    held_s = now_s - engine.since_s
    return held_s >= drain_s or (engine.in_flight == 0 and held_s >= settle_s)


def _names(engines: Sequence[ScaledEngine]) -> tuple[str, ...]:
    return tuple(engine.name for engine in engines)


START_TIMEOUT_FACTOR = 3
"""An engine that takes so many times as long as expected to come up counts as broken."""
SHORTEST_START_TIMEOUT_S = 30.0


class ActuatorCall(Enum):
    """A call to the actuator that is under way."""

    STARTING = "starting"
    RESTING = "resting"


@dataclass(frozen=True, slots=True)
class EngineFacts:
    state: EngineState
    serves: bool
    """It is up, whether it is held back or not."""
    held: bool
    draining: bool = False
    """Held back by scaling, to rest when it is idle."""
    at_rest: bool = False
    moving: ActuatorCall | None = None
    out_for_s: float = 0.0
    """How long it has not served, or since it was started."""
    started: bool = False
    """By scaling, and not up since."""


def lifecycle_stage(facts: EngineFacts, ready_s: float, blip_s: float) -> LifecycleStage:
    """`ready_s`: what a start should take; `blip_s`: an engine that is away for less gets no stand-in yet."""
    if facts.held and not facts.draining and facts.moving is None:
        return LifecycleStage.UNAVAILABLE  # a person's word
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
