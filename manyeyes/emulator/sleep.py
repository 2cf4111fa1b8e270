"""Sleep mode: vllm/v1/engine/core.py `sleep` and `wake_up`. Requests that come meanwhile wait; /health stays 200."""

import asyncio
from typing import Literal

from manyeyes.emulator.engine import Engine

Mode = Literal["abort", "wait", "keep"]
TAGS = {"weights", "kv_cache"}


class Sleep:
    """Whether the engine sleeps: `level` is None while it is awake."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.level: int | None = None
        self.awake: set[str] = set()
        """What of it was woken so far, by tag."""
        self.lost = False
        """Its weights are: level 2 dropped them, and nobody has read them again. vLLM would answer noise."""

    async def begin(self, level: int, mode: Mode) -> None:
        """0 only stops the scheduler, 1 moves the weights to the host, 2 drops them; 1 and 2 empty all caches."""
        engine = self.engine
        if level:
            engine.renderer.cache.forget()
        engine.core.pause(new_only=mode != "keep")
        if mode == "abort":
            engine.abort_all()
        if mode == "wait":
            await engine.resting.wait()
        self.level = level
        self.awake.clear()
        self.lost = self.lost or level == 2
        if level:
            engine.core.forget()
            await asyncio.sleep(engine.options.profile.sleep_s)
        engine.metrics.show_sleep(level)

    def reload_weights(self) -> bool:
        """False while there is no memory for them."""
        if self.level and "weights" not in self.awake:
            return False
        self.lost = self.engine.weightless = False
        return True

    async def end(self, tags: list[str]) -> bool:
        """Says whether the engine is awake: with tags it is when all there is was named, at once or one after the other."""
        self.awake |= set(tags)
        if self.level and tags and not self.awake >= TAGS:
            return False
        if self.level:
            await asyncio.sleep(self.engine.options.profile.wake_s)
        self.level = None
        self.engine.weightless = self.lost
        self.engine.resume()
        self.engine.metrics.show_sleep(None)
        return True
