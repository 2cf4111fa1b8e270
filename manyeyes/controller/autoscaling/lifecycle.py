"""Where an engine is, as far as scaling goes, from what is known of it. Pure."""

from dataclasses import dataclass
from enum import Enum

from manyeyes.controller.autoscaling.reconcile import Stage
from manyeyes.controller.health.state_machine import State

PATIENCE = 3
"""An engine that takes so many times as long as expected to come up counts as broken."""
LEAST_PATIENCE_S = 30.0


class Moving(Enum):
    """A call to the actuator that is under way."""

    STARTING = "starting"
    RESTING = "resting"
    RESTARTING = "restarting"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one engine."""

    state: State
    serves: bool
    """It is up, whether it is held back or not."""
    held: bool
    going: bool = False
    """Held back by scaling, to rest when it is idle."""
    at_rest: bool = False
    moving: Moving | None = None
    out_for_s: float = 0.0
    """How long it has not served, or since it was started."""
    started: bool = False
    """By scaling, and not up since."""


def stage(facts: Facts, ready_s: float, blip_s: float) -> Stage:
    """`ready_s`: what a start should take; `blip_s`: an engine that is away for less gets no stand-in yet."""
    if facts.held and not facts.going and facts.moving is None:
        return Stage.AWAY  # a person's word
    if facts.moving is Moving.STARTING:
        return Stage.COMING
    if facts.moving is Moving.RESTING or facts.at_rest:
        return Stage.OFF
    if facts.going:
        return Stage.GOING
    if facts.serves:
        return Stage.SERVING
    patience_s = max(LEAST_PATIENCE_S, PATIENCE * ready_s)
    if facts.state is State.DOWN and not facts.started:
        patience_s = blip_s
    return Stage.COMING if facts.out_for_s < patience_s else Stage.AWAY
