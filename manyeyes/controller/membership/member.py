"""One engine of the fleet and everything that is known of it."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from manyeyes.config.engines import Engine
from manyeyes.controller.health import states
from manyeyes.controller.health.vllm_metrics import EngineLoad


@dataclass
class FleetMember:
    """One engine, its state, and the address it was last seen at."""

    engine: Engine
    in_flight: int
    """Requests it is given at a time."""
    health: states.EngineHealth = field(default_factory=states.EngineHealth)
    address: str | None = None
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    load: EngineLoad | None = None
    """What it last said of its work; None while it said nothing."""
    succeeded_at_s: float | None = None
    """When it last began an answer that succeeded, as the gateway's log says; on the monotonic clock."""
    failures: int = 0
    """Requests that failed on it since then."""
    accepts: frozenset[str] | None = None
    """Every `model` that it accepts, as it said itself at its last warm-up; None while that is not known."""
    reason: str = ""
    """Why it is in its state: the last sentence about it, without its name."""

    @property
    def since_s(self) -> float:
        """How long it is in its state."""
        return (datetime.now(UTC) - self.since).total_seconds()
