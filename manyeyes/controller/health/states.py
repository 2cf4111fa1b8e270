"""What is known of one engine's health: its states, and what probes and users' requests say of it."""

from dataclasses import dataclass
from enum import Enum


class EngineState(Enum):
    """An engine's place in its life. `up` and `suspect` get new requests."""

    UNKNOWN = "unknown"
    """Not probed since this controller started."""
    STARTING = "starting"
    """Never answered yet: loading its model, or not started at all."""
    WARMING = "warming"
    """Answers /health; one picture is under way, because the first one is several times slower."""
    UP = "up"
    SUSPECT = "suspect"
    """Gets new requests, and something is odd: it is probed more closely."""
    DRAINING = "draining"
    """Up, and held back on somebody's word: it finishes what it has and gets nothing new."""
    DOWN = "down"
    """Was up and cannot serve."""
    SLEEPING = "sleeping"
    """vLLM's sleep mode: it would keep requests waiting until it is woken. Also shown for one that scaling stopped."""
    REMOTE = "remote"
    """Runs elsewhere, and nobody here looks after it."""


SERVES = frozenset({EngineState.UP, EngineState.SUSPECT})
STATES_BEFORE_UP = frozenset({EngineState.UNKNOWN, EngineState.STARTING, EngineState.DOWN})


class ProbeResult(Enum):
    """What one probe of /health saw."""

    HEALTHY = "healthy"
    GONE = "gone"
    """No such host, or nothing listens there: the process is not running. Certain."""
    DEAD = "dead"
    """It answers, and says that it cannot serve (vLLM: 503 after its engine core died). Certain."""
    SILENT = "silent"
    """No answer yet. It may be hung, or only busy."""
    ODD = "odd"
    """It answers, but not as an engine does: a redirect, something that is not HTTP, a body without an end."""


class CanaryResult(Enum):
    """What came of asking it about one picture, for one token."""

    PASSED = "passed"
    BUSY = "busy"
    """It was full, which says nothing."""
    FAILED = "failed"
    """It answered with an error."""
    SILENT = "silent"
    """No answer in time."""


class AttemptOutcome(Enum):
    OK = "ok"
    """It answered, if only that the client was wrong (4xx)."""
    REFUSED = "refused"
    """No connection: nothing listens there, or it did not connect in time. The engine never saw the request."""
    LOST = "lost"
    """The connection was cut after the request was sent and before an answer began."""
    BUSY = "busy"
    """It answered that it is full (503, from other servers 429)."""
    ERROR = "error"
    """It answered with any other 5xx."""
    TIMEOUT = "timeout"
    """It took the request and did not begin to answer in time."""
    LEFT = "left"
    """The client went away before it answered."""


class SuspectReason(Enum):
    SILENT = "silent"
    STALLED = "stalled"
    ODD = "odd"
    FAILING = "failing"
    CANARY = "canary"


@dataclass(slots=True)
class Observation:
    """Everything seen of an engine at one moment. Times are seconds of one clock that never goes back."""

    at_s: float
    result: ProbeResult
    why: str = ""
    """What is odd, in words."""
    waited_s: float = 0.0
    """How long /health took, or has not been answered so far."""
    progressed: bool | None = None
    """Its counters of tokens and steps moved since the previous probe; None where they were not read."""
    busy: bool = False
    idle: bool = True
    """Nothing is inside it, in preparation neither."""
    succeeded_at_s: float | None = None
    """When it last began an answer to the gateway that succeeded."""
    failures: int = 0
    """Attempts of the gateway that it failed, since its last success."""
    asleep: bool | None = None
    canary: CanaryResult | None = None
    canary_said: str = ""
    others_serve: bool = True
    """Another engine of its pool gets requests."""
    patience: float = 1.0
    """How many times as long as others it is waited for: one step of an engine on CPU takes seconds."""


@dataclass(frozen=True)
class EngineHealth:
    """Everything that decides whether one engine gets requests."""

    state: EngineState = EngineState.UNKNOWN
    good: int = 0
    """Healthy probes in a row."""
    bad: int = 0
    """Other probes in a row."""
    last: ProbeResult | None = None
    settled: bool = False
    """It is known whether it gets requests: seen since this controller started, remembered from before, or added later."""
    held: bool = False
    """Out on somebody's word, whatever it answers."""
    held_for: str = ""
    """That word."""
    at_rest: bool = False
    """Scaling stopped it or put it to sleep: nothing is wrong with it."""
    suspect_reason: SuspectReason | None = None
    timed_out: bool = False
    """It is down because it was silent, which proves nothing."""
    alive_at_s: float | None = None
    """Last sign of life: an answer of /health, progress, or a success."""
    moved_at_s: float | None = None
    """Last time its work went on, or it had none."""
    proved_at_s: float | None = None
    """Last answer to a request: a user's, or a canary."""
    slow_s: float = 0.0
    """How long it lately took to answer /health."""
    canaries_failed: int = 0
    good_since_s: float | None = None
    downs: tuple[float, ...] = ()
    """When it went down, within the window of flap damping."""

    @property
    def shown(self) -> EngineState:
        """The state that people see."""
        if self.at_rest and not self.serves:
            return EngineState.SLEEPING
        return EngineState.DRAINING if self.held and self.serves else self.state

    @property
    def serves(self) -> bool:
        return self.state in SERVES


@dataclass(frozen=True)
class Transition:
    """The engine after an observation, and one sentence when its state changed."""

    engine: EngineHealth
    sentence: str = ""
