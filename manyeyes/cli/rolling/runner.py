"""Engines restarted one after the other while users are on. rolling.py decides, an Actuator does."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from manyeyes.cli.rolling import state_machine
from manyeyes.cli.rolling.state_machine import SERVING, Action, Observation, Phase, Restart, RestartTimes

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
    """Each of `names` in turn. Raises NotBack. However it ends, an engine that is out is let in again; LeftOut says where that failed."""
    for name in names:
        turn = before = Restart()
        try:
            while not turn.ended:
                before = turn
                seen = _seen(name, turn, actuator)
                turn, act = state_machine.next_step(turn, seen, rules)
                tell(turn, seen)
                if act:
                    _do(act, name, actuator)
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


def _do(act: Action, name: str, actuator: Actuator) -> None:
    match act:
        case Action.HOLD:
            actuator.hold(name)
        case Action.STOP:
            actuator.stop(name)
        case Action.START:
            actuator.start(name)
        case Action.RELEASE:
            actuator.release(name)
