"""The steps of a rolling restart: next_step() decides each step from observations, and an Actuator executes it.

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
"""Up, but out of rotation."""


class Phase(Enum):
    BEGIN = "waits for another engine of its pool"
    LEAVING = "leaves the rotation"
    FINISHING = "finishes its requests"
    STOPPING = "stops"
    COMING = "starts"
    JOINING = "joins the rotation"
    DONE = "is back"
    FAILED = "is not back"


class Action(Enum):
    """The next action on the engine. The value is the name of the Actuator's method."""

    HOLD = "hold"
    STOP = "stop"
    START = "start"
    RELEASE = "release"


@dataclass(frozen=True)
class RestartTimes:
    """Timeouts of one engine's restart, in seconds."""

    leave_s: float
    """From a change in DNS until all nginx workers use it."""
    finish_s: float
    """For the requests in flight."""
    stop_s: float
    """From the stop of the engine until the controller reports it."""
    start_s: float
    """From the start of the engine until it is up."""


@dataclass(frozen=True)
class Observation:
    """One observation of the engine."""

    now_s: float
    """Time on a monotonic clock."""
    state: str
    """As reported by the controller; empty if unknown."""
    in_flight: int | None
    """None if unknown."""
    others: int
    """Number of other engines of its pool that get requests."""
    is_only: bool
    """Its pool has no other engine."""
    failed: str = ""
    """Why its container cannot start; empty while it still may."""


@dataclass(frozen=True)
class Restart:
    """State of one engine's restart."""

    phase: Phase = Phase.BEGIN
    since_s: float | None = None
    left_behind: int | None = 0
    """Requests that were still in flight when the engine was stopped; None if unknown."""
    why: str = ""
    """Reason of the failure."""

    @property
    def ended(self) -> bool:
        return self.phase in (Phase.DONE, Phase.FAILED)

    @property
    def out(self) -> bool:
        """The engine was taken out of rotation and may still be out."""
        return self.phase not in (Phase.BEGIN, Phase.DONE)

    @property
    def stopped(self) -> bool:
        """The engine was stopped and is not up yet."""
        return self.phase in (Phase.STOPPING, Phase.COMING)


def next_step(turn: Restart, seen: Observation, rules: RestartTimes) -> tuple[Restart, Action | None]:
    """Returns the state after an observation, and the next action. Pure: no clock, no Docker."""
    if turn.since_s is None:
        turn = replace(turn, since_s=seen.now_s)
    assert turn.since_s is not None
    past_s = seen.now_s - turn.since_s
    match turn.phase:
        case Phase.BEGIN:
            if seen.state and (seen.others or seen.is_only or seen.state not in SERVING | {DRAINING}):
                return _enter(turn, Phase.LEAVING, seen), Action.HOLD
            if past_s > rules.stop_s and not seen.state:
                return _fail(turn, "the controller does not answer, or does not know the engine"), None
            if past_s > rules.stop_s:
                return _fail(turn, "no other engine of its pool is up, so requests would fail"), None
        case Phase.LEAVING:
            if seen.state and seen.state not in SERVING | {DRAINING}:
                return _enter(turn, Phase.STOPPING, seen), Action.STOP
            if past_s >= rules.leave_s and seen.state == DRAINING:
                return next_step(_enter(turn, Phase.FINISHING, seen), seen, rules)
            if past_s > rules.leave_s + rules.stop_s:
                return _fail(turn, "the controller does not report that it is out of rotation"), None
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
                return _fail(turn, "it was stopped, but the controller does not report that"), None
        case Phase.COMING:
            if seen.failed:
                return _fail(turn, seen.failed), None
            if seen.state in SERVING | {DRAINING}:
                return _enter(turn, Phase.JOINING, seen), Action.RELEASE
            if past_s > rules.start_s:
                return _fail(turn, f"it was not up within {rules.start_s:.0f} s"), None
        case Phase.JOINING:
            if seen.state not in SERVING:
                if past_s > rules.stop_s:
                    return _fail(
                        turn, f"it was put back into rotation, but its state is {seen.state or 'unknown'}"
                    ), None
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
    """One engine, as reported by the controller."""

    pool: str
    state: str
    in_flight: int | None


class Actuator(Protocol):
    """Observes and controls engines. Any exception of a call ends the restart."""

    def look(self) -> dict[str, EngineStatus]:
        """Returns all engines by name; empty while the controller does not answer."""

    def hold(self, name: str) -> None:
        """Takes the engine out of rotation."""

    def release(self, name: str) -> None:
        """Puts the engine back into rotation."""

    def stop(self, name: str) -> None:
        """Stops the engine."""

    def start(self, name: str) -> None:
        """Starts the engine with its current configuration."""

    def why_not_up(self, name: str) -> str:
        """Returns why the engine cannot start; empty while it still may."""


class RestartFailed(Exception):
    """An engine did not come back. The engines after it were not touched."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")
        self.name, self.why = name, why


class LeftOutOfRotation(Exception):
    """A restart failed with `cause`, and putting its engine back into rotation failed with `again`."""

    def __init__(self, name: str, may_be_stopped: bool, cause: BaseException, again: BaseException) -> None:
        super().__init__(f"{name}: {in_words(cause)}; {in_words(again)}")
        self.name, self.may_be_stopped, self.cause, self.again = name, may_be_stopped, cause, again


def in_words(error: BaseException) -> str:
    """Returns the error's text without the final period, or `interrupted` for Ctrl-C."""
    return "interrupted" if isinstance(error, KeyboardInterrupt) else (str(error) or type(error).__name__).rstrip(". ")


def restart(
    names: Sequence[str],
    rules: RestartTimes,
    actuator: Actuator,
    tell: Callable[[Restart, Observation], None] = lambda turn, seen: None,
) -> None:
    """Restarts each engine of `names` in turn. Raises RestartFailed.

    An engine that is out of rotation is always put back; LeftOutOfRotation reports that this failed.
    """
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
                if before.out:  # if it still comes up later, it gets requests again
                    actuator.release(name)
            except Exception as again:
                raise RestartFailed(
                    name, f"{turn.why}; it could not be put back into rotation: {in_words(again)}"
                ) from again
            raise RestartFailed(name, turn.why)


def put_back(name: str, turn: Restart, actuator: Actuator) -> None:
    """Starts an interrupted engine again if it was stopped, and puts it back into rotation."""
    if turn.stopped:
        actuator.start(name)
    if turn.out:
        actuator.release(name)


def _is_in(name: str, turn: Restart, actuator: Actuator) -> bool:
    """Whether an engine that could not be put back was never out of rotation, or is unknown to the controller."""
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
