"""Engines restarted one after the other while users are on. next_step() decides from what is seen, an Actuator does.

begin ─▶ leaving ─▶ finishing ─▶ stopping ─▶ coming ─▶ joining ─▶ done
   │                                │           │          │
   └────────────────────────────────┴───────────┴──────────┴─▶ failed
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

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
    """What is to be done to the engine: the method of its Actuator."""

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
    """The turn after a look, and what is to be done now. Pure: no clock, no Docker."""
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


LOOK_EVERY_S = 0.5


@dataclass(frozen=True)
class EngineStatus:
    """One engine as the controller tells it."""

    pool: str
    state: str
    in_flight: int | None


class Actuator(Protocol):
    """What can be done to engines and seen of them. Each call may raise whatever ends the restart."""

    def look(self) -> dict[str, EngineStatus]:
        """Every engine by name; empty while the controller cannot be asked."""

    def hold(self, name: str) -> None:
        """Takes it out of rotation."""

    def release(self, name: str) -> None:
        """Lets it in again."""

    def stop(self, name: str) -> None:
        """Ends it."""

    def start(self, name: str) -> None:
        """Starts it as it is configured."""

    def why_not_up(self, name: str) -> str:
        """Why it cannot come up any more; empty while it may."""


class RestartFailed(Exception):
    """An engine did not come back; those after it were not touched."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")
        self.name, self.why = name, why


class LeftOutOfRotation(Exception):
    """A restart ended by `cause`, and putting its engine back ended by `again`."""

    def __init__(self, name: str, may_be_stopped: bool, cause: BaseException, again: BaseException) -> None:
        super().__init__(f"{name}: {in_words(cause)}; {in_words(again)}")
        self.name, self.may_be_stopped, self.cause, self.again = name, may_be_stopped, cause, again


def in_words(error: BaseException) -> str:
    """Without the dot at its end. `interrupted` only where somebody pressed Ctrl-C."""
    return "interrupted" if isinstance(error, KeyboardInterrupt) else (str(error) or type(error).__name__).rstrip(". ")


def restart(
    names: Sequence[str],
    rules: RestartTimes,
    actuator: Actuator,
    tell: Callable[[Restart, Observation], None] = lambda turn, seen: None,
) -> None:
    """Each of `names` in turn. Raises RestartFailed. However it ends, an engine that is out is let in again; LeftOutOfRotation says where that failed."""
    for name in names:
        turn = before = Restart()
        try:
            while not turn.ended:
                before = turn
                seen = _seen(name, turn, actuator)
                turn, act = next_step(turn, seen, rules)
                tell(turn, seen)
                if act:
                    getattr(actuator, act.value)(name)
                elif not turn.ended:
                    time.sleep(LOOK_EVERY_S)
        except BaseException as cause:
            try:
                put_back(name, turn, actuator)
            except BaseException as again:
                if _is_in(name, turn, actuator):
                    raise cause from again
                raise LeftOutOfRotation(name, turn.stopped, cause, again) from cause
            raise
        if turn.phase is Phase.FAILED:
            try:
                if before.phase is Phase.STOPPING:
                    actuator.start(name)
                if before.out:  # should it come up yet, it gets requests again
                    actuator.release(name)
            except Exception as again:
                raise RestartFailed(name, f"{turn.why}; and it could not be put back: {in_words(again)}") from again
            raise RestartFailed(name, turn.why)


def put_back(name: str, turn: Restart, actuator: Actuator) -> None:
    """An interrupted engine: started again where it was stopped, and let in."""
    if turn.stopped:
        actuator.start(name)
    if turn.out:
        actuator.release(name)


def _is_in(name: str, turn: Restart, actuator: Actuator) -> bool:
    """Whether an engine that could not be let in again was never out: the controller says so, or does not know it at all."""
    if turn.stopped:
        return False
    try:
        looks = actuator.look()
    except BaseException:
        return False
    return bool(looks) and (name not in looks or looks[name].state in SERVING)


def _seen(name: str, turn: Restart, actuator: Actuator) -> Observation:
    looks = actuator.look()
    mine = looks.get(name)
    others = [one for other, one in looks.items() if mine and other != name and one.pool == mine.pool]
    return Observation(
        now_s=time.monotonic(),
        state=mine.state if mine else "",
        in_flight=mine.in_flight if mine else None,
        others=sum(one.state in SERVING for one in others),
        is_only=bool(mine) and not others,
        failed=actuator.why_not_up(name) if turn.phase is Phase.COMING else "",
    )
