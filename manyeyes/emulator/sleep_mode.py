"""vLLM's sleep mode: which parts of an engine are awake."""

import asyncio
from typing import Literal

from manyeyes.emulator.engine import EmulatedEngine

PauseMode = Literal["abort", "wait", "keep"]
TAGS = {"weights", "kv_cache"}


class SleepMode:
    """The engine's sleep state: `level` is None while it is awake."""

    def __init__(self, engine: EmulatedEngine) -> None:
        self.engine = engine
        self.level: int | None = None
        self.awake: set[str] = set()
        """Tags of the parts that are awake."""
        self.weights_lost = False
        """Whether the weights are missing: level 2 discarded them, and they were not reloaded. vLLM would answer random
        text."""

    async def begin(self, level: int, mode: PauseMode) -> None:
        """Level 0 only stops the scheduler, 1 moves the weights to the host, 2 discards them.

        Levels 1 and 2 empty all caches.
        """
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
        self.weights_lost = self.weights_lost or level == 2
        if level:
            engine.core.forget()
            await asyncio.sleep(engine.options.profile.sleep_s)
        engine.metrics.show_sleep(level)

    def reload_weights(self) -> bool:
        """Reloads the weights. False if there is no memory for them yet."""
        if self.level and "weights" not in self.awake:
            return False
        self.weights_lost = self.engine.weightless = False
        return True

    async def end(self, tags: list[str]) -> bool:
        """Wakes the parts in `tags`, or all.

        Returns whether the engine is awake, which requires that all parts were woken.
        """
        self.awake |= set(tags)
        if self.level and tags and not self.awake >= TAGS:
            return False
        if self.level:
            await asyncio.sleep(self.engine.options.profile.wake_s)
        self.level = None
        self.engine.weightless = self.weights_lost
        self.engine.resume()
        self.engine.metrics.show_sleep(None)
        return True
