"""One engine of the simulation: API server and GPU. It has no clock; it says when it wants to be told the time."""

from heapq import heapreplace

from manyeyes.planner.plan_request import Card
from manyeyes.simulator.conversation_kv_cache import ChainCache
from manyeyes.simulator.encoder_cache import EncoderCache
from manyeyes.simulator.fast_forward_core import LeapingCore
from manyeyes.simulator.media_processor import DECODING_THREADS, ProcessorCache, decoding_s, preprocessing_s
from manyeyes.simulator.request import Job
from manyeyes.simulator.scheduler import Scheduler


class SimulatedEngine:
    """Threads are the times at which they are free; every queue before them is first come, first served."""

    __slots__ = ("_cache", "_card", "_decoders", "_preprocessor_free_at", "core", "preprocessing_s", "version")

    def __init__(self, card: Card) -> None:
        self._card = card
        scheduler = Scheduler(
            ChainCache(card.kv_cache_tokens),
            EncoderCache(card.encoder_tokens),
            card.max_num_seqs,
            card.max_num_batched_tokens,
        )
        self.core = LeapingCore(scheduler, card.profile)
        self.version = 0  # of the core's `next_at`: an alarm set for an older one is void
        self.preprocessing_s = 0.0  # that the preprocessing thread worked
        self._cache = ProcessorCache(card.mm_cache_bytes) if card.mm_cache_bytes else None
        self._decoders = [0.0] * DECODING_THREADS
        self._preprocessor_free_at = 0.0

    @property
    def full(self) -> bool:
        """Whether vLLM would refuse a request; those in rendering do not count."""
        scheduler = self.core.scheduler
        return len(scheduler.running) + len(scheduler.waiting) >= self._card.in_flight

    def decoded_at(self, job: Job, now: float) -> float:
        """When a request that comes `now` has its media decoded; the same as tokenised where there are none."""
        begins = ends = now + self._card.profile.render_ms / 1e3
        for medium in job.media:
            free_at = max(begins, self._decoders[0]) + decoding_s(medium, self._card.profile)
            heapreplace(self._decoders, free_at)
            ends = max(ends, free_at)
        return ends

    def preprocessed_at(self, job: Job, now: float) -> tuple[float, float]:
        """When the preprocessing thread begins and ends with media that are decoded `now`."""
        begins = max(now, self._preprocessor_free_at)
        takes = 0.0
        for medium in job.media:
            cached = self._cache is not None and self._cache.use(medium)
            takes += preprocessing_s(medium, self._card.profile, cached=cached)
        self.preprocessing_s += takes
        self._preprocessor_free_at = begins + takes
        return begins, begins + takes
