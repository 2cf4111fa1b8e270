"""What is known of one engine, and how an observation changes it. Pure: no clock, no socket.

unknown -> starting -> warming -> up -> down -> warming -> up
   |          ^                    ^
   +----------+--------------------+    (the first look decides)
"""

from dataclasses import dataclass, replace
from enum import Enum

from config.gateway import Controller


class State(Enum):
    """An engine's place in its life. Only `up` gets new requests."""

    UNKNOWN = "unknown"
    """Not looked at since this controller started."""
    STARTING = "starting"
    """Never answered yet: loading its model, or not started at all."""
    WARMING = "warming"
    """Answers /health; one picture is under way, because the first one is several times slower."""
    UP = "up"
    """Gets new requests."""
    DRAINING = "draining"
    """Up, and held back on somebody's word: it finishes what it has and gets nothing new."""
    DOWN = "down"
    """Was up and does not answer."""


class Look(Enum):
    """What one probe of /health saw."""

    HEALTHY = "healthy"
    """Status 200."""
    GONE = "gone"
    """No such host, or nothing listens there: the process is not running. Beyond doubt."""
    DEAD = "dead"
    """It answers, and says that it cannot serve (vLLM: 503 after its engine core died). Beyond doubt."""
    SILENT = "silent"
    """No answer in time. It may be hung, or only busy."""


@dataclass(frozen=True)
class Engine:
    """Everything that decides whether one engine gets requests."""

    state: State = State.UNKNOWN
    good: int = 0
    """Healthy looks in a row."""
    bad: int = 0
    """Other looks in a row."""
    last: Look | None = None
    settled: bool = False
    """It was seen up, down or not running since this controller started, so its pool can be answered for."""
    held: bool = False
    """Out on somebody's word, whatever it answers."""

    @property
    def shown(self) -> State:
        """The state that people are told."""
        return State.DRAINING if self.held and self.state is State.UP else self.state


@dataclass(frozen=True)
class Step:
    """The engine after an observation, and one sentence when its state changed."""

    engine: Engine
    sentence: str = ""


def look(engine: Engine, seen: Look, rules: Controller) -> Step:
    """The engine after one probe."""
    if seen is Look.HEALTHY:
        after = replace(engine, good=engine.good + 1, bad=0, last=seen)
        return _healthy(after, rules)
    after = replace(engine, good=0, bad=engine.bad + 1, last=seen)
    return _unhealthy(after, seen, rules)


def warmed(engine: Engine, error: str = "") -> Step:
    """The engine after its warm-up picture; a failed one is tried again after the next good look."""
    if engine.state is not State.WARMING:
        return Step(engine)
    if error:
        return Step(replace(engine, good=0, last=Look.DEAD), f"stays out: its warm-up failed: {error}")
    return Step(_enter(engine, State.UP), "is up: its warm-up picture was answered")


def hold(engine: Engine, reason: str) -> Step:
    """Takes an engine out on somebody's word. What it has in flight goes on."""
    if engine.held:
        return Step(engine)
    return Step(replace(engine, held=True), f"is held back: {reason}")


def release(engine: Engine, reason: str) -> Step:
    """Lets an engine in again, as soon as it is up."""
    if not engine.held:
        return Step(engine)
    return Step(replace(engine, held=False), f"is let in again: {reason}")


def _healthy(engine: Engine, rules: Controller) -> Step:
    if engine.state in (State.UP, State.WARMING) or engine.good < rules.rise:
        return Step(engine)
    if not rules.warm_up:
        return Step(_enter(engine, State.UP), "is up: it answers /health")
    return Step(replace(engine, state=State.WARMING), "answers /health and gets its warm-up picture")


def _unhealthy(engine: Engine, seen: Look, rules: Controller) -> Step:
    if engine.state is State.UNKNOWN and (seen is not Look.SILENT or engine.bad >= rules.fall):
        return Step(_enter(engine, State.STARTING), f"is not up yet: {_words(seen)}")
    if engine.state is State.WARMING and seen is not Look.SILENT:
        return Step(_enter(engine, State.STARTING), f"went away while warming up: {_words(seen)}")
    if engine.state is State.UP and (seen is not Look.SILENT or engine.bad >= rules.fall):
        return Step(_enter(engine, State.DOWN), f"is down: {_words(seen)}")
    return Step(engine)


def _enter(engine: Engine, state: State) -> Engine:
    return replace(engine, state=state, settled=True)


def _words(seen: Look) -> str:
    return {
        Look.GONE: "nothing listens there",
        Look.DEAD: "it answers that it cannot serve",
        Look.SILENT: "/health was not answered in time",
        Look.HEALTHY: "it is healthy",
    }[seen]


def members(pool: dict[str, Engine]) -> list[str] | None:
    """The engines of one pool that get new requests, by name. None while nothing is known (nginx then keeps its own).

    A pool is never emptied on doubt: when no engine is up, those that are merely silent stay in.
    """
    wanted = {name: engine for name, engine in pool.items() if not engine.held}
    if not all(engine.settled for engine in wanted.values()):
        return None
    up = [name for name, engine in wanted.items() if engine.state is State.UP]
    return up or [name for name, engine in wanted.items() if engine.state is State.DOWN and engine.last is Look.SILENT]
