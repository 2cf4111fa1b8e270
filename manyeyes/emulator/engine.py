"""The emulated engine: preprocesses requests like vLLM's API server, drives the core with the clock, wakes waiting
requests and counts."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from time import monotonic

from manyeyes.emulator.cli import EmulatorOptions
from manyeyes.emulator.constant_latency_core import ConstantLatencyCore
from manyeyes.emulator.faults import Faults, video_frames
from manyeyes.emulator.metrics import Metrics
from manyeyes.emulator.responses import BACKLOG, BUSY, ENGINE_DEAD, WEIGHTLESS, internal_error, unavailable
from manyeyes.simulator import kv_cache
from manyeyes.simulator.core import BatchedCore, EngineCore, EngineStep
from manyeyes.simulator.kv_cache import KvCache
from manyeyes.simulator.multimodal import DECODING_THREADS, EncoderCache, ProcessorCache, decoding_s, preprocessing_s
from manyeyes.simulator.profile import TimingProfile
from manyeyes.simulator.request import EngineRequest, MediaItem, RunningSequence
from manyeyes.simulator.scheduler import Scheduler


class Preprocessor:
    """Waits for the time that preprocessing of a request takes."""

    def __init__(self, profile: TimingProfile, metrics: Metrics, cache_bytes: float) -> None:
        self.profile = profile
        self.cache = ProcessorCache(cache_bytes)
        self.rendering = 0  # requests in preprocessing
        self._metrics = metrics
        self._caching = cache_bytes > 0
        self._decoders = asyncio.Semaphore(DECODING_THREADS)
        self._preprocessor = asyncio.Lock()
        self._preprocessor_free_at = 0.0

    @property
    def health_s(self) -> float:
        """Duration of /health, which shares the event loop and the interpreter's lock with preprocessing."""
        return self.rendering * self.profile.health_ms / 1e3

    async def render(self, job: EngineRequest) -> None:
        """Returns when the job can be passed to the engine core."""
        self.rendering += 1
        try:
            await asyncio.sleep(self.profile.render_ms / 1e3)
            if job.media:
                await asyncio.gather(*map(self._decode, job.media))
                await self._preprocess(job)
        finally:
            self.rendering -= 1

    async def _decode(self, medium: MediaItem) -> None:
        async with self._decoders:
            await asyncio.sleep(decoding_s(medium, self.profile))

    async def _preprocess(self, job: EngineRequest) -> None:
        """A waiting job can be cancelled; a job that has begun occupies the thread until its end."""
        requested_at = monotonic()
        async with self._preprocessor:
            # A job that had to wait begins when the previous job ended, however late this process wakes.
            begins = max(requested_at, self._preprocessor_free_at)
            self._preprocessor_free_at = begins + sum(map(self._item_s, job.media))
            await asyncio.sleep(self._preprocessor_free_at - monotonic())

    def _item_s(self, medium: MediaItem) -> float:
        cached = False
        if self._caching:
            self._metrics.mm_queries.inc()
            if cached := self.cache.use(medium):
                self._metrics.mm_hits.inc()
        return preprocessing_s(medium, self.profile, cached=cached)


TICK_S = 0.001  # uvloop's timers count whole milliseconds, so everything due within half a millisecond is due
WATCHDOG_S = 5.0  # interval at which vLLM's launcher checks whether its engine core is alive


def make_core(options: EmulatorOptions) -> EngineCore:
    """A core with constant times if they are set, else a core with the profile's timing."""
    if options.constants is not None:
        return ConstantLatencyCore(options.constants, options.max_num_seqs, options.max_model_len)
    largest_item = max(options.max_pixels, options.video_max_pixels // 2) // 1024
    scheduler = Scheduler(
        KvCache(options.kv_cache_tokens, prefix_caching=options.prefix_caching),
        EncoderCache(max(options.max_num_batched_tokens, largest_item)),
        options.max_num_seqs,
        options.max_num_batched_tokens,
    )
    return BatchedCore(scheduler, options.profile)


class EmulatedEngine:
    """One engine. It has no timer while there is nothing to do."""

    def __init__(self, options: EmulatorOptions) -> None:
        self.options = options
        self.metrics = Metrics(options.served_model_name[0])
        self.core = make_core(options)
        self.renderer = Preprocessor(options.profile, self.metrics, options.mm_cache_bytes)
        self.draining = False  # no new jobs
        self.idle = asyncio.Event()
        self.idle.set()
        self._requests = 0  # from the end of their body to the end of their answer
        self._alarm: asyncio.TimerHandle | None = None
        self._backlog = 0  # prompt tokens of sequences without a first token
        self.faults = Faults(self._fault_changed)
        self.dead = False  # the engine core has died; the process exits soon
        self.weightless = False  # it slept at level 2 and its weights were not reloaded
        self.died = asyncio.Event()
        self.exit_s = 0.0  # time from the core's death to the exit of the process
        self.resting = asyncio.Event()  # no request runs; requests may wait
        self.resting.set()
        self.responsive = asyncio.Event()  # /health is answered
        self.responsive.set()
        self.refusing = asyncio.Event()  # the port is closed
        self.reopened = asyncio.Event()
        self.metrics.watch(lambda: self.running, lambda: self.waiting, lambda: self.core.kv_usage)

    @property
    def under_way(self) -> int:
        return self._requests

    @contextmanager
    def busy(self) -> Generator[None, None, None]:
        self._requests += 1
        self.idle.clear()
        try:
            yield
        finally:
            self._requests -= 1
            if not self._requests:
                self.idle.set()

    @property
    def running(self) -> int:
        return self.core.running

    @property
    def waiting(self) -> int:
        return self.core.waiting

    @property
    def frames_in_prefill(self) -> int:
        """Frames of all videos that wait for their first token: the frames that the vision encoder may hold at the same
        time."""
        return sum(video_frames(sequence.job) for sequence in self.core.sequences if not sequence.generated)

    def check_admission(self) -> None:
        """Raises RequestError if the queue is full. Requests in preprocessing do not count, as in vLLM."""
        if self.running + self.waiting >= self.options.max_num_queued_reqs:
            self.metrics.rejections["max_num_queued_reqs"].inc()
            raise unavailable(BUSY)
        if self._backlog >= self.options.max_num_queued_tokens:
            self.metrics.rejections["max_num_queued_tokens"].inc()
            raise unavailable(BACKLOG)

    async def render(self, job: EngineRequest) -> None:
        """Waits for the API server's preprocessing time, which is 0 with constant times."""
        if self.options.constants is None:
            await self.renderer.render(job)

    def die(self, exit_s: float = WATCHDOG_S) -> None:
        """Emulates the death of the engine core: every request and /health fail, and the process exits after
        `exit_s`."""
        self.dead, self.exit_s = True, exit_s
        for sequence in self.core.sequences:
            self._end(sequence)
            sequence.wake()
        self.died.set()

    def resume(self) -> None:
        self.core.resume(monotonic())
        self._arm()

    def abort_all(self) -> None:
        for sequence in self.core.sequences:
            self._end(sequence)
            self.metrics.finished["abort"].inc()
            sequence.wake()

    def new_sequence(self, job: EngineRequest, arrived: float) -> RunningSequence:
        """`arrived`: time of the monotonic clock in seconds, before preprocessing."""
        sequence = RunningSequence(job, arrived)
        if self.options.constants is None:
            answer = (hash(word.strip()) for word in job.answer)
            sequence.hashes = kv_cache.block_hashes([*job.prompt, *answer], job.cache_salt)
        return sequence

    async def run(self, sequence: RunningSequence) -> AsyncGenerator[int, None]:
        """Yields the number of generated tokens each time it grows, until the answer is complete. Raises RequestError.

        For an answer that is not streamed it yields only at the end.
        It ends early, with missing tokens, if the engine aborts. Closing it (the client disconnected) cancels the job.
        """
        if self.dead:
            raise internal_error(ENGINE_DEAD)
        if self.weightless:
            raise internal_error(WEIGHTLESS)
        if self.draining:  # it was in preprocessing when the engine received SIGTERM
            sequence.ended = True
            return
        if self.options.constants is None:  # else no time has passed since the first check
            self.check_admission()
        loop = asyncio.get_running_loop()
        sequence.queued = monotonic()
        self._backlog += len(sequence.job.prompt)
        self.core.add(sequence, sequence.queued)
        self._arm()
        reported = 0
        try:
            while reported < len(sequence.job.answer):
                if sequence.generated == reported or not (sequence.job.stream or sequence.ended):
                    if sequence.ended and self.dead:
                        raise internal_error(ENGINE_DEAD)
                    if sequence.ended:
                        return
                    sequence.waiter = loop.create_future()
                    await sequence.waiter
                    continue
                reported = sequence.generated
                yield reported
        finally:
            if not sequence.ended:
                self._end(sequence)

    def _end(self, sequence: RunningSequence) -> None:
        """Ends a sequence before its answer is complete."""
        sequence.ended = True
        if not sequence.generated:
            self._backlog -= len(sequence.job.prompt)
        self.core.remove(sequence)
        self._arm()

    def _fault_changed(self, kind: str) -> None:
        values = self.faults.on.get(kind)
        if kind == "slow":
            self.core.slowness = values["factor"] if values else 1.0
        elif kind == "hung":
            self._arm()
            (self.responsive.set if not values or values["health"] else self.responsive.clear)()
        elif kind == "refuse":
            (self.refusing.set if values else self.refusing.clear)()
            (self.reopened.clear if values else self.reopened.set)()
        elif kind == "dead" and values:
            self.die(values["exit_s"])

    def _arm(self) -> None:
        """Sets the timer for the core's next step; no timer while the engine hangs."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        (self.resting.clear if self.running else self.resting.set)()
        if self.core.next_at is not None and "hung" not in self.faults.on:
            wait_s = max(self.core.next_at - monotonic(), 0.0)
            loop = asyncio.get_running_loop()
            # A delay of 0 runs in the next iteration of the event loop, so that requests that arrive together begin
            # together.
            self._alarm = loop.call_later(max(wait_s, TICK_S) if wait_s > TICK_S / 2 else 0, self._tick)

    def _tick(self) -> None:
        self._alarm = None
        for step in self.core.advance(monotonic() + TICK_S / 2):
            self._count(step)
            for sequence, _ in step.produced:
                if sequence.job.stream or sequence.ended:
                    sequence.wake()
        self._arm()

    def _count(self, step: EngineStep) -> None:
        metrics = self.metrics
        if step.took_s:
            metrics.busy_s.inc(step.took_s)
        if step.queried:
            metrics.prefix_queries.inc(step.queried)
            metrics.prefix_hits.inc(step.cached_tokens)
        if step.preempted:
            metrics.preemptions.inc(step.preempted)
        if not step.produced:
            return
        computed = 0
        for sequence, number in step.produced:
            if number == 1:
                computed += len(sequence.job.prompt) - sequence.cached
                self._backlog -= len(sequence.job.prompt)
                sequence.first_token = step.at
                metrics.count_first_token(sequence)
            else:
                metrics.inter_token_s.observe(step.at - sequence.last_token)
            sequence.last_token = step.at
            if number == len(sequence.job.answer):
                metrics.count_finished(sequence)
        metrics.generation_tokens.inc(len(step.produced))
        metrics.iteration_tokens.observe(computed + len(step.produced))
