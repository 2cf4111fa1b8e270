"""The steps of a rolling restart: next_step() decides each step from observations, and an Actuator executes it.

begin ─▶ leaving ─▶ finishing ─▶ stopping ─▶ starting ─▶ joining ─▶ done
   │                                │           │            │
   └────────────────────────────────┴───────────┴────────────┴─▶ failed
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
    STARTING = "starts"
    JOINING = "joins the rotation"
    DONE = "is back"
    FAILED = "is not back"


class Action(Enum):
    """The next action on the engine. The value is the name of the Actuator's method."""

    DRAIN = "drain"
    STOP = "stop"
    START = "start"
    RESUME = "resume"


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
    other_engines: int
    """Number of other engines of its pool that get requests."""
    is_only_engine: bool
    """Its pool has no other engine."""
    failure: str = ""
    """Why its container cannot start; empty while it still may."""


@dataclass(frozen=True)
class Restart:
    """State of one engine's restart."""

    phase: Phase = Phase.BEGIN
    since_s: float | None = None
    unfinished_requests: int | None = 0
    """Requests that were still in flight when the engine was stopped; None if unknown."""
    reason: str = ""
    """Reason of the failure."""

    @property
    def has_ended(self) -> bool:
        return self.phase in (Phase.DONE, Phase.FAILED)

    @property
    def is_out_of_rotation(self) -> bool:
        """The engine was taken out of rotation and may still be out."""
        return self.phase not in (Phase.BEGIN, Phase.DONE)

    @property
    def is_stopped(self) -> bool:
        """The engine was stopped and is not up yet."""
        return self.phase in (Phase.STOPPING, Phase.STARTING)


def next_step(progress: Restart, observation: Observation, times: RestartTimes) -> tuple[Restart, Action | None]:
    """Returns the state after an observation, and the next action. Pure: no clock, no Docker."""
    if progress.since_s is None:
        progress = replace(progress, since_s=observation.now_s)
    assert progress.since_s is not None
    elapsed_s = observation.now_s - progress.since_s
    match progress.phase:
        case Phase.BEGIN:
            if observation.state and (
                observation.other_engines or observation.is_only_engine or observation.state not in SERVING | {DRAINING}
            ):
                return _enter(progress, Phase.LEAVING, observation), Action.DRAIN
            if elapsed_s > times.stop_s and not observation.state:
                return _fail(progress, "the controller does not answer, or does not know the engine"), None
            if elapsed_s > times.stop_s:
                return _fail(progress, "no other engine of its pool is up, so requests would fail"), None
        case Phase.LEAVING:
            if observation.state and observation.state not in SERVING | {DRAINING}:
                return _enter(progress, Phase.STOPPING, observation), Action.STOP
            if elapsed_s >= times.leave_s and observation.state == DRAINING:
                return next_step(_enter(progress, Phase.FINISHING, observation), observation, times)
            if elapsed_s > times.leave_s + times.stop_s:
                return _fail(progress, "the controller does not report that it is out of rotation"), None
        case Phase.FINISHING:
            if observation.in_flight == 0:
                return _enter(progress, Phase.STOPPING, observation), Action.STOP
            if elapsed_s >= times.finish_s:
                unfinished = replace(progress, unfinished_requests=observation.in_flight)
                return _enter(unfinished, Phase.STOPPING, observation), Action.STOP
        case Phase.STOPPING:
            if observation.state and observation.state not in SERVING | {DRAINING}:
                return _enter(progress, Phase.STARTING, observation), Action.START
            if elapsed_s > times.stop_s:
                return _fail(progress, "it was stopped, but the controller does not report that"), None
        case Phase.STARTING:
            if observation.failure:
                return _fail(progress, observation.failure), None
            if observation.state in SERVING | {DRAINING}:
                return _enter(progress, Phase.JOINING, observation), Action.RESUME
            if elapsed_s > times.start_s:
                return _fail(progress, f"it was not up within {times.start_s:.0f} s"), None
        case Phase.JOINING:
            if observation.state not in SERVING:
                if elapsed_s > times.stop_s:
                    return _fail(
                        progress, f"it was put back into rotation, but its state is {observation.state or 'unknown'}"
                    ), None
            elif elapsed_s >= times.leave_s:
                return _enter(progress, Phase.DONE, observation), None
    return progress, None


def _enter(progress: Restart, phase: Phase, observation: Observation) -> Restart:
    return replace(progress, phase=phase, since_s=observation.now_s)


def _fail(progress: Restart, reason: str) -> Restart:
    return replace(progress, phase=Phase.FAILED, reason=reason)


POLL_INTERVAL_S = 0.5


@dataclass(frozen=True)
class EngineStatus:
    """One engine, as reported by the controller."""

    pool: str
    state: str
    in_flight: int | None


class Actuator(Protocol):
    """Observes and controls engines. Any exception of a call ends the restart."""

    def query_engines(self) -> dict[str, EngineStatus]:
        """Returns all engines by name; empty while the controller does not answer."""

    def drain(self, name: str) -> None:
        """Takes the engine out of rotation."""

    def resume(self, name: str) -> None:
        """Puts the engine back into rotation."""

    def stop(self, name: str) -> None:
        """Stops the engine."""

    def start(self, name: str) -> None:
        """Starts the engine with its current configuration."""

    def find_start_failure(self, name: str) -> str:
        """Returns why the engine cannot start; empty while it still may."""


class RestartFailed(Exception):
    """An engine did not come back. The engines after it were not touched."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name, self.reason = name, reason


class LeftOutOfRotation(Exception):
    """A restart failed with `cause`, and putting its engine back into rotation failed with `put_back_error`."""

    def __init__(self, name: str, may_be_stopped: bool, cause: BaseException, put_back_error: BaseException) -> None:
        super().__init__(f"{name}: {describe_error(cause)}; {describe_error(put_back_error)}")
        self.name, self.may_be_stopped, self.cause, self.put_back_error = name, may_be_stopped, cause, put_back_error


def describe_error(error: BaseException) -> str:
    """Returns the error's text without the final period, or `interrupted` for Ctrl-C."""
    return "interrupted" if isinstance(error, KeyboardInterrupt) else (str(error) or type(error).__name__).rstrip(". ")


def restart(
    names: Sequence[str],
    times: RestartTimes,
    actuator: Actuator,
    on_step: Callable[[Restart, Observation], None] = lambda progress, observation: None,
) -> None:
    """Restarts each engine of `names` in turn. Raises RestartFailed.

    An engine that is out of rotation is always put back; LeftOutOfRotation reports that this failed.
    """
    for name in names:
        progress = previous = Restart()
        try:
            while not progress.has_ended:
                previous = progress
                observation = _observe(name, progress, actuator)
                progress, action = next_step(progress, observation, times)
                on_step(progress, observation)
                if action:
                    getattr(actuator, action.value)(name)
                elif not progress.has_ended:
                    time.sleep(POLL_INTERVAL_S)
        except BaseException as cause:
            try:
                put_back(name, progress, actuator)
            except BaseException as put_back_error:
                if _is_in_rotation(name, progress, actuator):
                    raise cause from put_back_error
                raise LeftOutOfRotation(name, progress.is_stopped, cause, put_back_error) from cause
            raise
        if progress.phase is Phase.FAILED:
            try:
                if previous.phase is Phase.STOPPING:
                    actuator.start(name)
                if previous.is_out_of_rotation:  # if it still comes up later, it gets requests again
                    actuator.resume(name)
            except Exception as put_back_error:
                raise RestartFailed(
                    name, f"{progress.reason}; it could not be put back into rotation: {describe_error(put_back_error)}"
                ) from put_back_error
            raise RestartFailed(name, progress.reason)


def put_back(name: str, progress: Restart, actuator: Actuator) -> None:
    """Starts an interrupted engine again if it was stopped, and puts it back into rotation."""
    if progress.is_stopped:
        actuator.start(name)
    if progress.is_out_of_rotation:
        actuator.resume(name)


def _is_in_rotation(name: str, progress: Restart, actuator: Actuator) -> bool:
    """Whether an engine that could not be put back was never out of rotation, or is unknown to the controller."""
    if progress.is_stopped:
        return False
    try:
        statuses = actuator.query_engines()
    except BaseException:
        return False
    return bool(statuses) and (name not in statuses or statuses[name].state in SERVING)


def _observe(name: str, progress: Restart, actuator: Actuator) -> Observation:
    statuses = actuator.query_engines()
    status = statuses.get(name)
    peers = [peer for peer_name, peer in statuses.items() if status and peer_name != name and peer.pool == status.pool]
    return Observation(
        now_s=time.monotonic(),
        state=status.state if status else "",
        in_flight=status.in_flight if status else None,
        other_engines=sum(peer.state in SERVING for peer in peers),
        is_only_engine=bool(status) and not peers,
        failure=actuator.find_start_failure(name) if progress.phase is Phase.STARTING else "",
    )
