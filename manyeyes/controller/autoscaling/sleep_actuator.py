"""vLLM's sleep mode: seconds instead of a minute, but the process stays, with its weights in host memory (level 1) or without (level 2).

Its calls exist only with --enable-sleep-mode and VLLM_SERVER_DEV_MODE=1, want no key, and are reached inside the cluster's network
only. A sleeping vLLM answers /health with 200 and keeps requests waiting (vllm/v1/engine/core.py), so it is held back before it sleeps.
"""

import asyncio
from collections.abc import Sequence

import httpx

from manyeyes.config.engines import Engine
from manyeyes.controller.autoscaling.actuator import CannotMove
from manyeyes.controller.bounded import NoReply, call

ASK_TIMEOUT_S = 5.0
SLEEP_TIMEOUT_S = 120.0
"""Weights of tens of gigabytes are copied to host memory."""
WAKE_TIMEOUT_S = 300.0
"""Level 2 reads the weights from disk again."""


class Sleep:
    """Puts engines to sleep and wakes them."""

    def __init__(self, client: httpx.AsyncClient, levels: dict[str, int]) -> None:
        self.client = client
        self.levels = levels
        """By pool: 1 or 2."""

    async def at_rest(self, engines: Sequence[Engine]) -> dict[str, bool]:
        asked = await asyncio.gather(*(self._is_asleep(engine) for engine in engines))
        return {engine.name: asleep for engine, asleep in zip(engines, asked, strict=True) if asleep is not None}

    async def bring_back(self, engine: Engine) -> None:
        if self.levels.get(engine.pool, 1) == 2:
            # vLLM's order for level 2: memory for the weights, the weights, memory for the KV cache; its caches are of before.
            await self._post(engine, "/wake_up?tags=weights", WAKE_TIMEOUT_S)
            await self._post(engine, "/collective_rpc", WAKE_TIMEOUT_S, {"method": "reload_weights"})
            await self._post(engine, "/wake_up?tags=kv_cache", WAKE_TIMEOUT_S)
            await self._post(engine, "/reset_prefix_cache", WAKE_TIMEOUT_S)
        else:
            await self._post(engine, "/wake_up", WAKE_TIMEOUT_S)

    async def lay_to_rest(self, engine: Engine) -> None:
        await self._post(engine, f"/sleep?level={self.levels.get(engine.pool, 1)}", SLEEP_TIMEOUT_S)

    async def _is_asleep(self, engine: Engine) -> bool | None:
        """None for an engine without sleep mode. One that does not answer is not asleep: whether it serves, its probes tell."""
        try:
            reply = await call(self.client, "GET", f"{_url(engine)}/is_sleeping", ASK_TIMEOUT_S)
        except NoReply:
            return False
        if reply.status == 404:
            return None
        try:
            return bool(reply.json()["is_sleeping"])
        except (ValueError, LookupError, TypeError):
            return False

    async def _post(self, engine: Engine, path: str, timeout_s: float, body: dict[str, str] | None = None) -> None:
        try:
            reply = await call(self.client, "POST", _url(engine) + path, timeout_s, body)
        except NoReply as error:
            raise CannotMove(f"{engine.name} does not answer {path}: {error}") from error
        if reply.status == 404:
            raise CannotMove(
                f"{engine.name} has no {path}: it runs without --enable-sleep-mode and VLLM_SERVER_DEV_MODE=1"
            )
        if reply.status != 200:
            raise CannotMove(f"{engine.name} answers {reply.status} to {path}: {reply.text[:200]}")


def _url(engine: Engine) -> str:
    return f"http://{engine.host}:{engine.port}"
