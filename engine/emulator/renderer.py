"""What happens to a request in the API server before the engine core sees it: vllm/renderers/base.py.

Media are decoded on eight threads. Everything else that turns them into the model's input happens on one thread, request
after request: for a small vision model this, not the GPU, is what limits an engine.
"""

import asyncio
from collections import OrderedDict
from time import monotonic

from engine.emulator.job import Job, Medium
from engine.emulator.metrics import Metrics
from engine.emulator.profile import Profile

DECODING_THREADS = 8  # VLLM_MEDIA_LOADING_THREAD_COUNT
BYTES_PER_PIXEL = 12  # 3 colours, each twice for the temporal patch, 2 bytes each


class ProcessorCache:
    """Whose pixels are still there: keys of media, the longest unused first."""

    def __init__(self, capacity_bytes: float) -> None:
        self._capacity = capacity_bytes
        self._bytes = 0
        self._sizes: OrderedDict[int, int] = OrderedDict()

    def use(self, medium: Medium) -> bool:
        """Whether it was there. It is afterwards, unless it is too large."""
        if medium.key in self._sizes:
            self._sizes.move_to_end(medium.key)
            return True
        size = medium.fitted_pixels * BYTES_PER_PIXEL
        if size <= self._capacity:
            self._sizes[medium.key] = size
            self._bytes += size
            while self._bytes > self._capacity:
                self._bytes -= self._sizes.popitem(last=False)[1]
        return False

    def forget(self) -> None:
        self._sizes.clear()
        self._bytes = 0


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
            await asyncio.sleep(self.profile.decode_ms / 1e3 * medium.source_pixels / 1e6)

    async def _preprocess(self, job: Job) -> None:
        """A job that waits can be given up; one that has begun keeps the thread busy to its end."""
        asked = monotonic()
        async with self._preprocessor:
            # Who had to wait begins when the one before was done, however late this process is woken.
            begins = max(asked, self._preprocessor_free_at)
            self._preprocessor_free_at = begins + sum(map(self._item_s, job.media))
            await asyncio.sleep(self._preprocessor_free_at - monotonic())

    def _item_s(self, medium: Medium) -> float:
        if self._caching:
            self._metrics.mm_queries.inc()
            if self.cache.use(medium):
                self._metrics.mm_hits.inc()
                return self.profile.cached_item_ms / 1e3
        return (self.profile.preprocess_item_ms + self.profile.preprocess_ms * medium.fitted_pixels / 1e6) / 1e3
