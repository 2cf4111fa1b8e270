"""One engine's turn in a rolling restart: what comes next, from what is seen. Pure: no clock, no Docker.

begin ─▶ leaving ─▶ finishing ─▶ stopping ─▶ coming ─▶ joining ─▶ done
   │                                │           │          │
   └────────────────────────────────┴───────────┴──────────┴─▶ failed
"""

from dataclasses import dataclass, replace
from enum import Enum

SERVING = frozenset({"up", "suspect"})
DRAINING = "draining"
"""Up, and out of rotation."""


class Phase(Enum):
    BEGIN = "waits for another engine of its pool"
    LEAVING = "is leaving the rotation"
    FINISHING = "finishes what it has"
    STOPPING = "stops"
    COMING = "starts"
    JOINING = "joins the rotation"
    DONE = "is back"
    FAILED = "is not back"


class Action(Enum):
    """What is to be done to the engine."""

    HOLD = "hold"
    STOP = "stop"
    START = "start"
    RELEASE = "release"


@dataclass(frozen=True)
class RestartTimes:
    """Times of one turn, in seconds."""

    leave_s: float
    """After it was taken out of DNS (or let in), until nginx surely knows."""
    finish_s: float
    """For what it has in flight."""
    stop_s: float
    """After its end, until the controller sees that."""
    start_s: float
    """From its start until it is warm."""


@dataclass(frozen=True)
class Observation:
    """One look at the engine."""

    now_s: float
    """On a clock that never goes back."""
    state: str
    """As the controller tells it; empty while it does not."""
    in_flight: int | None
    """None where that is not known."""
    others: int
    """Further engines of its pool that get requests."""
    is_only: bool
    """Its pool has no further engine."""
    failed: str = ""
    """Why its container cannot come up, in words; empty while it may."""


@dataclass(frozen=True)
class Restart:
    """Where one engine's restart is."""

    phase: Phase = Phase.BEGIN
    since_s: float | None = None
    left_behind: int | None = 0
    """Requests in flight when it was stopped all the same; None where that was not known."""
    why: str = ""
    """What went wrong."""

    @property
    def ended(self) -> bool:
        return self.phase in (Phase.DONE, Phase.FAILED)

    @property
    def out(self) -> bool:
        """It was taken out of rotation, and perhaps not yet let in again."""
        return self.phase not in (Phase.BEGIN, Phase.DONE)

    @property
    def stopped(self) -> bool:
        """It was told to stop and is not back."""
        return self.phase in (Phase.STOPPING, Phase.COMING)


def next_step(turn: Restart, seen: Observation, rules: RestartTimes) -> tuple[Restart, Action | None]:
    """The turn after a look, and what is to be done now."""
    if turn.since_s is None:
        turn = replace(turn, since_s=seen.now_s)
    assert turn.since_s is not None
    past_s = seen.now_s - turn.since_s
    match turn.phase:
        case Phase.BEGIN:
            if seen.state and (seen.others or seen.is_only or seen.state not in SERVING | {DRAINING}):
                return _enter(turn, Phase.LEAVING, seen), Action.HOLD
            if past_s > rules.stop_s and not seen.state:
                return _fail(turn, "the controller does not answer, or does not know it"), None
            if past_s > rules.stop_s:
                return _fail(turn, "no other engine of its pool is up, so users would be turned away"), None
        case Phase.LEAVING:
            if seen.state and seen.state not in SERVING | {DRAINING}:
                return _enter(turn, Phase.STOPPING, seen), Action.STOP
            if past_s >= rules.leave_s and seen.state == DRAINING:
                return next_step(_enter(turn, Phase.FINISHING, seen), seen, rules)
            if past_s > rules.leave_s + rules.stop_s:
                return _fail(turn, "the controller does not say that it is out of rotation"), None
        case Phase.FINISHING:
            if seen.in_flight == 0:
                return _enter(turn, Phase.STOPPING, seen), Action.STOP
            if past_s >= rules.finish_s:
                left = replace(turn, left_behind=seen.in_flight)
                return _enter(left, Phase.STOPPING, seen), Action.STOP
        case Phase.STOPPING:
            if seen.state and seen.state not in SERVING | {DRAINING}:
                return _enter(turn, Phase.COMING, seen), Action.START
            if past_s > rules.stop_s:
                return _fail(turn, "it was stopped, and the controller does not see that"), None
        case Phase.COMING:
            if seen.failed:
                return _fail(turn, seen.failed), None
            if seen.state in SERVING | {DRAINING}:
                return _enter(turn, Phase.JOINING, seen), Action.RELEASE
            if past_s > rules.start_s:
                return _fail(turn, f"it did not come up within {rules.start_s:.0f} s"), None
        case Phase.JOINING:
            if seen.state not in SERVING:
                if past_s > rules.stop_s:
                    return _fail(turn, f"it was let in and is {seen.state or 'not known'}"), None
            elif past_s >= rules.leave_s:
                return _enter(turn, Phase.DONE, seen), None
    return turn, None


def _enter(turn: Restart, phase: Phase, seen: Observation) -> Restart:
    return replace(turn, phase=phase, since_s=seen.now_s)


def _fail(turn: Restart, why: str) -> Restart:
    return replace(turn, phase=Phase.FAILED, why=why)
