"""Engines' containers, which exist already: started, stopped, restarted through the filter in front of Docker's socket.

The filter (manyeyes/render/docker_socket_filter.py) lets exactly the calls below pass, for exactly this project's engines. Three calls over HTTP need no
SDK: Docker's own for Python is synchronous and brings `requests`.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any

import httpx

from manyeyes.config.engines import Engine
from manyeyes.controller.autoscaling.actuator import CannotMove
from manyeyes.controller.bounded import NoReply, Reply, call

ASK_TIMEOUT_S = 10.0
STOP_MARGIN_S = 30.0
RUNNING = frozenset({"running", "restarting", "paused"})


class Containers:
    """The engines' containers of one Compose project."""

    def __init__(self, client: httpx.AsyncClient, url: str, project: str, grace_s: float) -> None:
        self.client = client
        self.url = url
        self.project = project
        self.grace_s = grace_s

    async def at_rest(self, engines: Sequence[Engine]) -> dict[str, bool]:
        states = await self.states()
        return {engine.name: states[engine.name] not in RUNNING for engine in engines if engine.name in states}

    async def states(self) -> dict[str, str]:
        """{engine: running, exited, created, ...} of every container that the project has for an engine. Raises CannotMove."""
        reply = await self._call("GET", "/containers/json", ASK_TIMEOUT_S)
        try:
            return {
                row["Labels"]["manyeyes.engine"]: str(row["State"])
                for row in reply.json()
                if f"/{self._container(row['Labels']['manyeyes.engine'])}" in row["Names"]
            }
        except (ValueError, LookupError, TypeError) as error:
            raise CannotMove(f"Docker's list of containers cannot be read: {type(error).__name__} {error}") from error

    async def started_at(self, engine: str) -> datetime:
        """When its container was started last. Raises CannotMove."""
        reply = await self._call("GET", f"/containers/{self._container(engine)}/json", ASK_TIMEOUT_S)
        try:
            # 2026-11-21T16:30:00.123456789Z: Python takes six digits.
            text = str(reply.json()["State"]["StartedAt"])
            return datetime.fromisoformat(text[:19] + "+00:00")
        except (ValueError, LookupError, TypeError) as error:
            raise CannotMove(f"what Docker says of {engine} cannot be read: {type(error).__name__} {error}") from error

    async def bring_back(self, engine: Engine) -> None:
        await self._call("POST", f"/containers/{self._container(engine.name)}/start", ASK_TIMEOUT_S + STOP_MARGIN_S)

    async def lay_to_rest(self, engine: Engine) -> None:
        await self._call("POST", f"/containers/{self._container(engine.name)}/stop", self.grace_s + STOP_MARGIN_S)

    async def restart(self, engine: str) -> None:
        """Ends what it has in flight. Raises CannotMove."""
        await self._call("POST", f"/containers/{self._container(engine)}/restart", self.grace_s + STOP_MARGIN_S)

    def _container(self, engine: str) -> str:
        return f"{self.project}-{engine}-1"

    async def _call(self, method: str, path: str, timeout_s: float) -> Reply:
        try:
            reply = await call(self.client, method, self.url + path, timeout_s)
        except NoReply as error:
            raise CannotMove(f"the filter in front of Docker's socket does not answer: {error}") from error
        # 304: it is started, or stopped, already.
        if reply.status in (200, 204, 304):
            return reply
        if reply.status == 403:
            raise CannotMove(f"{method} {path} is not allowed by the filter; `make up` renders it anew")
        if reply.status == 404:
            raise CannotMove(f"there is no such container as in {path}; `make up` makes it")
        raise CannotMove(f"Docker answers {reply.status} to {method} {path}: {_message(reply)}")


@contextlib.asynccontextmanager
async def containers(url: str, project: str, grace_s: float) -> AsyncIterator[Containers]:
    """Open while the context lasts."""
    async with httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_connections=None)) as client:
        yield Containers(client, url, project, grace_s)


def _message(reply: Reply) -> str:
    try:
        said: Any = reply.json()["message"]
    except (ValueError, LookupError, TypeError):
        said = reply.text
    return str(said)[:300]
