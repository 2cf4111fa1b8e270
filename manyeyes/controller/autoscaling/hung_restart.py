"""A hung engine is restarted: its process runs and does not answer, and nothing else would ever end it or its begun streams."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import structlog

from manyeyes.controller.autoscaling.actuators import RUNNING, ActuatorError, ContainerActuator
from manyeyes.controller.health.states import EngineState, ProbeResult
from manyeyes.controller.membership.fleet import Fleet
from manyeyes.controller.membership.membership_store import FleetMember
from manyeyes.controller.telemetry import metrics

log = structlog.get_logger()
HUNG = frozenset({ProbeResult.SILENT, ProbeResult.DEAD, ProbeResult.ODD})
"""Something listens there. One that refuses connections is loading its model, or is not running."""


def is_hung(member: FleetMember, after_s: float) -> bool:
    """It is out of rotation, not on somebody's word, for at least `after_s`, and its process still holds the port. Pure."""
    known = member.health
    return known.state is EngineState.DOWN and known.last in HUNG and not known.held and member.since_s >= after_s


class HungRestarts:
    """Restarts containers of hung engines."""

    def __init__(self, fleet: Fleet, containers: ContainerActuator, is_moving: Callable[[str], bool]) -> None:
        self.fleet = fleet
        self.containers = containers
        self.is_moving = is_moving
        self._under_way: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                await asyncio.sleep(self.fleet.cluster.controller.scaling_interval_s)
                try:
                    await self.tick()
                except ActuatorError as error:
                    log.warning("hung_engines_not_restarted", reason=str(error))
                except Exception:
                    log.exception("hung_engines_not_restarted")
        finally:
            for task in self._under_way.values():
                task.cancel()

    async def tick(self) -> None:
        """Raises ActuatorError when Docker cannot be asked."""
        after_s = self.fleet.cluster.controller.restart_hung_after_s
        if after_s is None:
            return
        hung = [
            member
            for name, member in self.fleet.members.items()
            if is_hung(member, after_s) and name not in self._under_way and not self.is_moving(name)
        ]
        if not hung:
            return
        states = await self.containers.states()
        for member in hung:
            name = member.engine.name
            if states.get(name) not in RUNNING:
                continue
            try:
                started_at = await self.containers.started_at(name)
            except ActuatorError as error:
                # One whose container is missing must not keep the others from being restarted.
                log.warning("hung_engine_not_restarted", engine=name, reason=str(error))
                continue
            # Another process than the one that went down deserves the same time.
            if datetime.now(UTC) - started_at < timedelta(seconds=after_s):
                continue
            self._under_way[name] = asyncio.create_task(self._restart(member))

    async def _restart(self, member: FleetMember) -> None:
        engine = member.engine
        try:
            self.fleet.emit_event(
                f"{engine.name} is restarted: it runs and has not answered for {member.since_s:.0f} s",
                engine=engine.name,
                pool=engine.pool,
            )
            metrics.HUNG_RESTARTS.labels(engine.name, engine.pool).inc()
            await self.containers.restart(engine.name)
        except ActuatorError as error:
            self.fleet.emit_event(
                f"{engine.name} could not be restarted: {error}", engine=engine.name, pool=engine.pool
            )
        finally:
            self._under_way.pop(engine.name, None)
