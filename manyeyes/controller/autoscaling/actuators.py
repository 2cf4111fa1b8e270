"""Starts and stops engines: as containers through the filter in front of Docker's socket, or with vLLM's sleep mode.

Also restarts the containers of hung engines.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import httpx
import structlog

from manyeyes.config.engines import Engine
from manyeyes.controller import metrics
from manyeyes.controller.bounded import BoundedResponse, RequestFailed, bounded_request
from manyeyes.controller.health.states import EngineState, ProbeResult
from manyeyes.controller.membership.fleet import Fleet
from manyeyes.controller.membership.membership_store import FleetMember
from manyeyes.controller.supervision import record_failure


class ActuatorError(Exception):
    """An engine could not be started or stopped; the message says why and what to do."""


class Actuator(Protocol):
    """Starts and stops engines, or puts them to sleep and wakes them."""

    async def find_stopped(self, engines: Sequence[Engine]) -> dict[str, bool]:
        """Returns by name whether each engine is stopped. Engines that this actuator cannot control are left out.

        Raises ActuatorError when the states are unknown.
        """
        ...

    async def start(self, engine: Engine) -> None:
        """Starts the engine and returns before it is up: it is up after its warm-up. Raises ActuatorError."""
        ...

    async def stop(self, engine: Engine) -> None:
        """Stops the engine and returns when it is stopped. Its requests in flight are lost, so drain it first.

        Raises ActuatorError.
        """
        ...


CONTAINER_TIMEOUT_S = 10.0
STOP_MARGIN_S = 30.0
RUNNING = frozenset({"running", "restarting", "paused"})


class ContainerActuator:
    """Starts and stops the engine containers of one Compose project."""

    def __init__(self, client: httpx.AsyncClient, url: str, project: str, grace_s: float) -> None:
        self.client = client
        self.url = url
        self.project = project
        self.grace_s = grace_s

    async def find_stopped(self, engines: Sequence[Engine]) -> dict[str, bool]:
        states = await self.states()
        return {engine.name: states[engine.name] not in RUNNING for engine in engines if engine.name in states}

    async def states(self) -> dict[str, str]:
        """{engine: running, exited, created, ...} for every engine container of the project. Raises ActuatorError."""
        reply = await self._call("GET", "/containers/json", CONTAINER_TIMEOUT_S)
        try:
            return {
                row["Labels"]["manyeyes.engine"]: str(row["State"])
                for row in reply.json()
                if f"/{self._container(row['Labels']['manyeyes.engine'])}" in row["Names"]
            }
        except (ValueError, LookupError, TypeError) as error:
            raise ActuatorError(
                f"Docker's list of containers cannot be read: {type(error).__name__} {error}"
            ) from error

    async def started_at(self, engine: str) -> datetime:
        """When the engine's container was last started. Raises ActuatorError."""
        reply = await self._call("GET", f"/containers/{self._container(engine)}/json", CONTAINER_TIMEOUT_S)
        try:
            # 2026-11-21T16:30:00.123456789Z: Python parses only six digits of a second.
            text = str(reply.json()["State"]["StartedAt"])
            return datetime.fromisoformat(text[:19] + "+00:00")
        except (ValueError, LookupError, TypeError) as error:
            raise ActuatorError(f"Docker's state of {engine} cannot be read: {type(error).__name__} {error}") from error

    async def start(self, engine: Engine) -> None:
        await self._call(
            "POST", f"/containers/{self._container(engine.name)}/start", CONTAINER_TIMEOUT_S + STOP_MARGIN_S
        )

    async def stop(self, engine: Engine) -> None:
        await self._call("POST", f"/containers/{self._container(engine.name)}/stop", self.grace_s + STOP_MARGIN_S)

    async def restart(self, engine: str) -> None:
        """Restarts the container; requests in flight are lost. Raises ActuatorError."""
        await self._call("POST", f"/containers/{self._container(engine)}/restart", self.grace_s + STOP_MARGIN_S)

    def _container(self, engine: str) -> str:
        return f"{self.project}-{engine}-1"

    async def _call(self, method: str, path: str, timeout_s: float) -> BoundedResponse:
        try:
            reply = await bounded_request(self.client, method, self.url + path, timeout_s)
        except RequestFailed as error:
            raise ActuatorError(f"the filter in front of Docker's socket does not answer: {error}") from error
        # 304: the container is already started or already stopped.
        if reply.status in (200, 204, 304):
            return reply
        if reply.status == 403:
            raise ActuatorError(
                f"the filter in front of Docker's socket does not allow {method} {path}. "
                "Run `make up` to render the filter again"
            )
        if reply.status == 404:
            raise ActuatorError(f"there is no such container: {path}. Run `make up` to create it")
        raise ActuatorError(f"Docker responds with {reply.status} to {method} {path}: {_message(reply)}")


def _message(reply: BoundedResponse) -> str:
    try:
        message: Any = reply.json()["message"]
    except (ValueError, LookupError, TypeError):
        message = reply.text
    return str(message)[:300]


SLEEPING_TIMEOUT_S = 5.0
SLEEP_TIMEOUT_S = 120.0
"""Weights of tens of gigabytes are copied to host memory."""
WAKE_TIMEOUT_S = 300.0
"""Level 2 reads the weights from disk again."""


class SleepActuator:
    """Puts engines to sleep and wakes them."""

    def __init__(self, client: httpx.AsyncClient, levels: dict[str, int]) -> None:
        self.client = client
        self.levels = levels
        """By pool: 1 or 2."""

    async def find_stopped(self, engines: Sequence[Engine]) -> dict[str, bool]:
        sleep_states = await asyncio.gather(*(self._is_asleep(engine) for engine in engines))
        return {engine.name: asleep for engine, asleep in zip(engines, sleep_states, strict=True) if asleep is not None}

    async def start(self, engine: Engine) -> None:
        if self.levels.get(engine.pool, 1) == 2:
            # vLLM's order for level 2: memory for the weights, the weights, memory for the KV cache. The prefix cache
            # is stale, so it is reset.
            await self._post(engine, "/wake_up?tags=weights", WAKE_TIMEOUT_S)
            await self._post(engine, "/collective_rpc", WAKE_TIMEOUT_S, {"method": "reload_weights"})
            await self._post(engine, "/wake_up?tags=kv_cache", WAKE_TIMEOUT_S)
            await self._post(engine, "/reset_prefix_cache", WAKE_TIMEOUT_S)
        else:
            await self._post(engine, "/wake_up", WAKE_TIMEOUT_S)

    async def stop(self, engine: Engine) -> None:
        await self._post(engine, f"/sleep?level={self.levels.get(engine.pool, 1)}", SLEEP_TIMEOUT_S)

    async def _is_asleep(self, engine: Engine) -> bool | None:
        """None for an engine without sleep mode.

        An engine that does not respond counts as awake; its health probes decide.
        """
        try:
            reply = await bounded_request(self.client, "GET", f"{_url(engine)}/is_sleeping", SLEEPING_TIMEOUT_S)
        except RequestFailed:
            return False
        if reply.status == 404:
            return None
        try:
            return bool(reply.json()["is_sleeping"])
        except (ValueError, LookupError, TypeError):
            return False

    async def _post(self, engine: Engine, path: str, timeout_s: float, body: dict[str, str] | None = None) -> None:
        try:
            reply = await bounded_request(self.client, "POST", _url(engine) + path, timeout_s, body)
        except RequestFailed as error:
            raise ActuatorError(f"{engine.name} does not respond to {path}: {error}") from error
        if reply.status == 404:
            raise ActuatorError(
                f"{engine.name} has no {path}: it runs without --enable-sleep-mode and VLLM_SERVER_DEV_MODE=1"
            )
        if reply.status != 200:
            raise ActuatorError(f"{engine.name} responds with {reply.status} to {path}: {reply.text[:200]}")


def _url(engine: Engine) -> str:
    return f"http://{engine.host}:{engine.port}"


log = structlog.get_logger()
HUNG = frozenset({ProbeResult.SILENT, ProbeResult.DEAD, ProbeResult.ODD})
"""Probe results of a hung engine, whose port is open. An engine with a closed port loads its model or does not run."""


def is_hung(member: FleetMember, after_s: float) -> bool:
    """Whether an engine was out for `after_s`, is not drained, and its process still has the port open. Pure.

    Its API server may answer /health while its core hangs: then it stays in warm-up, and each warm-up request fails. An
    engine whose process never served is not restarted for that: its first request may take minutes.
    """
    known = member.health
    is_down = known.state is EngineState.DOWN and known.last in HUNG
    is_core_hung = known.state is EngineState.WARMING and known.served and known.warm_ups_failed > 0
    return (is_down or is_core_hung) and not known.drained and member.since_s >= after_s


class HungRestarts:
    """Restarts the containers of hung engines."""

    def __init__(self, fleet: Fleet, containers: ContainerActuator, is_moving: Callable[[str], bool]) -> None:
        self.fleet = fleet
        self.containers = containers
        self.is_moving = is_moving
        self._restarts: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        try:
            while True:
                await asyncio.sleep(self.fleet.cluster.controller.scaling_interval_s)
                try:
                    await self.tick()
                except ActuatorError as error:
                    log.warning("hung_engine_restarts_failed", reason=str(error))
        finally:
            for task in self._restarts.values():
                task.cancel()

    async def tick(self) -> None:
        """Restarts the engines that are hung. Raises ActuatorError when Docker's container list is not available."""
        after_s = self.fleet.cluster.controller.restart_hung_after_s
        if after_s is None:
            return
        hung = [
            member
            for name, member in self.fleet.members.items()
            if is_hung(member, after_s) and name not in self._restarts and not self.is_moving(name)
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
                # A missing container must not prevent the restart of the other engines.
                log.warning("hung_engine_restart_failed", engine=name, reason=str(error))
                continue
            # A process that was started after the engine went down gets the full time again.
            if datetime.now(UTC) - started_at < timedelta(seconds=after_s):
                continue
            self._restarts[name] = asyncio.create_task(self._restart(member))

    async def _restart(self, member: FleetMember) -> None:
        engine = member.engine
        try:
            self.fleet.emit_event(
                f"{engine.name} is restarted: it runs but has not responded for {member.since_s:.0f} s",
                engine=engine.name,
                pool=engine.pool,
            )
            metrics.HUNG_RESTARTS.labels(engine.name, engine.pool).inc()
            await self.containers.restart(engine.name)
        except ActuatorError as error:
            self.fleet.emit_event(
                f"{engine.name} could not be restarted: {error}", engine=engine.name, pool=engine.pool
            )
        except Exception:
            record_failure("hung_restarts", engine=engine.name)
        finally:
            self._restarts.pop(engine.name, None)
