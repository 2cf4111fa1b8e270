"""A member of the fleet, and its persisted state: address, health state, accepted names and drains.

Until an engine is probed, DNS uses its persisted state, so that a controller restart does not affect the gateway.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from manyeyes.config.engines import Engine
from manyeyes.config.fields import parse_address
from manyeyes.controller.health import states
from manyeyes.controller.health.states import EngineState
from manyeyes.controller.health.vllm_metrics import EngineLoad
from manyeyes.controller.membership import pool_renames
from manyeyes.controller.membership.pool_renames import PoolLineage
from manyeyes.controller.state_store import StateStore


@dataclass
class FleetMember:
    """One engine, its state, and its last known address."""

    engine: Engine
    in_flight: int
    """Requests that the gateway sends it at a time."""
    health: states.EngineHealth = field(default_factory=states.EngineHealth)
    address: str | None = None
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    load: EngineLoad | None = None
    """Its last reported load; None when there is none."""
    succeeded_at_s: float | None = None
    """When its last successful answer began, according to the gateway's log; on the monotonic clock."""
    failures: int = 0
    """Requests that failed on it since then."""
    unverified: bool = False
    """It answered 500 to requests that the gateway found at fault. Its next canary request verifies this."""
    accepts: frozenset[str] | None = None
    """Every value of `model` that it accepts, as it listed them at its last warm-up; None while unknown."""
    reason: str = ""
    """Why it is in its state: the last sentence about it, without its name."""

    @property
    def since_s(self) -> float:
        return (datetime.now(UTC) - self.since).total_seconds()


BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class StoredMember:
    state: EngineState
    address: str | None
    accepts: frozenset[str] | None = None


class MembershipStore:
    """Three documents: `members`, `held` (the drained engines) and `lineage` (the former names of pools)."""

    def __init__(self, state_store: StateStore | None) -> None:
        self._state_store = state_store

    def members(self, engines: tuple[Engine, ...], lineage: PoolLineage) -> dict[str, StoredMember]:
        """The stored state of those `engines` that are the same process.

        Empty after a reboot, because addresses change.
        """
        document = self._read("members")
        if document.get("boot") != _boot():
            return {}
        rows = document.get("engines")
        by_name = {engine.name: engine for engine in engines}
        stored = {}
        for name, row in rows.items() if isinstance(rows, dict) else ():
            if name in by_name and isinstance(row, dict) and row.get("at") == _place(by_name[name], lineage):
                try:
                    state = EngineState(row.get("state"))
                except (ValueError, TypeError):
                    continue
                address, names = row.get("address"), row.get("accepts")
                is_address = isinstance(address, str) and isinstance(parse_address(address), IPv4Address)
                stored[name] = StoredMember(
                    state,
                    address if is_address else None,
                    frozenset(str(each) for each in names) if isinstance(names, list) and names else None,
                )
        return stored

    def drained(self) -> dict[str, str]:
        """The drained engines: {engine name: reason}."""
        return {str(name): str(reason) for name, reason in self._read("held").items()}

    def save_members(self, rows: dict[str, tuple[Engine, StoredMember]], lineage: PoolLineage) -> None:
        engines = {
            name: {"at": _place(engine, lineage), "state": member.state.value, "address": member.address}
            | ({"accepts": sorted(member.accepts)} if member.accepts else {})
            for name, (engine, member) in rows.items()
        }
        if self._state_store is not None:
            self._state_store.write("members", {"boot": _boot(), "engines": engines})

    def save_drained(self, reasons: dict[str, str]) -> None:
        self._write_later("held", reasons)

    def lineage(self) -> PoolLineage:
        """The former names of the pools."""
        return pool_renames.parse_lineage(self._read("lineage"))

    def save_lineage(self, lineage: PoolLineage) -> None:
        self._write_later("lineage", lineage.document())

    async def flush(self, timeout_s: float) -> None:
        """Waits until drains and lineage are on disk, at most for `timeout_s`."""
        if self._state_store is not None:
            await self._state_store.flush(timeout_s)

    def _write_later(self, name: str, document: Any) -> None:
        if self._state_store is not None:
            self._state_store.write_later(name, document)

    def _read(self, name: str) -> dict[str, Any]:
        if self._state_store is None:
            return {}
        document = self._state_store.read(name)
        if document is None:
            return {}
        if not isinstance(document, dict):
            self._state_store.set_aside(name, "expected a mapping")
            return {}
        return document


def _place(engine: Engine, lineage: PoolLineage) -> str:
    return f"{lineage.upstreams.get(engine.pool, engine.pool)} {pool_renames.engine_address(engine)}"


def _boot() -> str:
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""
