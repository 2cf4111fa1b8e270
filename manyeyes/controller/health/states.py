"""Data types for one engine's health: its states, and the observations of probes and users' requests."""

from dataclasses import dataclass
from enum import Enum


class EngineState(Enum):
    """The state of an engine. `up` and `suspect` engines get new requests."""

    UNKNOWN = "unknown"
    """Not probed since this controller started."""
    STARTING = "starting"
    """Has not answered yet: it loads its model, or is not started."""
    WARMING = "warming"
    """Answers /health. A warm-up request is in progress, because the first image takes several times longer."""
    UP = "up"
    SUSPECT = "suspect"
    """Gets new requests, but has a problem: it is probed more often."""
    DRAINING = "draining"
    """Up but drained: it finishes its requests and gets no new ones."""
    DOWN = "down"
    """Was up and cannot serve."""
    SLEEPING = "sleeping"
    """vLLM's sleep mode: requests would wait until it wakes up. Also shown when the autoscaler stopped the engine."""
    REMOTE = "remote"
    """A remote endpoint, which this cluster does not manage."""


SERVES = frozenset({EngineState.UP, EngineState.SUSPECT})
STATES_BEFORE_UP = frozenset({EngineState.UNKNOWN, EngineState.STARTING, EngineState.DOWN})


class ProbeResult(Enum):
    """The result of one probe of /health."""

    HEALTHY = "healthy"
    GONE = "gone"
    """The host name does not exist or the port is closed, so the process certainly does not run."""
    DEAD = "dead"
    """It reports that it certainly cannot serve (vLLM: 503 after its engine core died)."""
    SILENT = "silent"
    """No answer yet. It may be hung, or only busy."""
    ODD = "odd"
    """It does not respond like an engine: with a redirect, without HTTP, or with a body that does not end."""


class CanaryResult(Enum):
    """The result of a canary request: one token about one image."""

    PASSED = "passed"
    BUSY = "busy"
    """It was full, which proves nothing."""
    FAILED = "failed"
    """It answered with an error."""
    SILENT = "silent"
    """No answer within the timeout."""


class AttemptOutcome(Enum):
    OK = "ok"
    """It answered; client errors (4xx) count too."""
    REFUSED = "refused"
    """No connection: the port is closed, or the connection timed out. The engine never received the request."""
    LOST = "lost"
    """The connection was closed after the request was sent and before an answer began."""
    BUSY = "busy"
    """It answered that it is full (503; other servers use 429)."""
    ERROR = "error"
    """It answered with any other 5xx."""
    UNPROCESSABLE = "unprocessable"
    """It answered 500 or 501, and the gateway found the request at fault: the client got 422."""
    TIMEOUT = "timeout"
    """It accepted the request and did not begin to answer in time."""
    LEFT = "left"
    """The client disconnected before the engine answered."""


class SuspectReason(Enum):
    SILENT = "silent"
    STALLED = "stalled"
    ODD = "odd"
    FAILING = "failing"
    CANARY = "canary"


@dataclass(slots=True)
class Observation:
    """Everything observed of an engine at one moment. Times are seconds of one monotonic clock."""

    at_s: float
    result: ProbeResult
    why: str = ""
    """Description of what is odd."""
    waited_s: float = 0.0
    """How long /health took, or how long its response is awaited so far."""
    progressed: bool | None = None
    """Whether its counters of tokens and steps increased since the previous probe; None when they were not read."""
    busy: bool = False
    idle: bool = True
    """It has no requests, not even in preparation."""
    succeeded_at_s: float | None = None
    """When its last successful answer to the gateway began."""
    failures: int = 0
    """Failed attempts of the gateway since its last success."""
    unverified: bool = False
    """Since its last canary request, the gateway found requests at fault that it answered with 500."""
    asleep: bool | None = None
    canary: CanaryResult | None = None
    canary_problem: str = ""
    others_serve: bool = True
    """Another engine of its pool gets requests."""
    patience: float = 1.0
    """Factor for timeouts: one step of an engine on CPU takes seconds."""


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
    """Its eligibility is known: it was probed since this controller started, restored from disk, or added later."""
    drained: bool = False
    """Drained: it gets no new requests, regardless of its health."""
    drain_reason: str = ""
    """The reason of the drain."""
    at_rest: bool = False
    """The autoscaler stopped it or put it to sleep. It has no fault."""
    suspect_reason: SuspectReason | None = None
    timed_out: bool = False
    """It is down only because it did not answer, which proves nothing."""
    alive_at_s: float | None = None
    """Last sign of life: an answer of /health, progress, or a success."""
    moved_at_s: float | None = None
    """Last time it made progress or had no work."""
    proved_at_s: float | None = None
    """Last answer to a user's request or to a canary request."""
    slow_s: float = 0.0
    """Recent response time of /health."""
    canaries_failed: int = 0
    good_since_s: float | None = None
    downs: tuple[float, ...] = ()
    """When it went down, within the window of flap damping."""
    served: bool = False
    """It was up since its process started."""
    warm_ups_failed: int = 0
    """Failed warm-up requests since it was last up."""

    @property
    def shown(self) -> EngineState:
        """The state that operators see."""
        if self.at_rest and not self.serves:
            return EngineState.SLEEPING
        return EngineState.DRAINING if self.drained and self.serves else self.state

    @property
    def serves(self) -> bool:
        return self.state in SERVES


@dataclass(frozen=True)
class Transition:
    """The engine's health after an observation, and one sentence when its state changed."""

    engine: EngineHealth
    sentence: str = ""
