"""What happens to a request in the API server before the engine core sees it: the clock for manyeyes/simulator/media_processor.py."""

import asyncio
from time import monotonic

from manyeyes.emulator.metrics import Metrics
from manyeyes.simulator.media_processor import DECODING_THREADS, ProcessorCache, decoding_s, preprocessing_s
from manyeyes.simulator.profile import Profile
from manyeyes.simulator.request import Job, Medium


class Renderer:
    """Lets the time pass that rendering takes."""

    def __init__(self, profile: Profile, metrics: Metrics, cache_bytes: float) -> None:
        self.profile = profile
        self.cache = ProcessorCache(cache_bytes)
        self.rendering = 0  # requests in here
        self._metrics = metrics
        self._caching = cache_bytes > 0
        self._decoders = asyncio.Semaphore(DECODING_THREADS)
        self._preprocessor = asyncio.Lock()
        self._preprocessor_free_at = 0.0

    @property
    def health_s(self) -> float:
        """How long /health takes: it shares the event loop, and the interpreter's lock, with what happens here."""
        return self.rendering * self.profile.health_ms / 1e3

    async def render(self, job: Job) -> None:
        """Return when the job can go to the engine core."""
        self.rendering += 1
        try:
            await asyncio.sleep(self.profile.render_ms / 1e3)
            if job.media:
                await asyncio.gather(*map(self._decode, job.media))
                await self._preprocess(job)
        finally:
            self.rendering -= 1

    async def _decode(self, medium: Medium) -> None:
        async with self._decoders:
            await asyncio.sleep(decoding_s(medium, self.profile))

    async def _preprocess(self, job: Job) -> None:
        """A job that waits can be given up; one that has begun keeps the thread busy to its end."""
        asked = monotonic()
        async with self._preprocessor:
            # Who had to wait begins when the one before was done, however late this process is woken.
            begins = max(asked, self._preprocessor_free_at)
            self._preprocessor_free_at = begins + sum(map(self._item_s, job.media))
            await asyncio.sleep(self._preprocessor_free_at - monotonic())

    def _item_s(self, medium: Medium) -> float:
        cached = False
        if self._caching:
            self._metrics.mm_queries.inc()
            if cached := self.cache.use(medium):
                self._metrics.mm_hits.inc()
        return preprocessing_s(medium, self.profile, cached=cached)
