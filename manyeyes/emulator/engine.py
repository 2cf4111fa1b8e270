"""The engine: preprocesses requests as the API server does, drives the core with the clock, tells who waits, and counts."""

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
    """Lets the time pass that rendering takes."""

    def __init__(self, profile: TimingProfile, metrics: Metrics, cache_bytes: float) -> None:
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

    async def render(self, job: EngineRequest) -> None:
        """Return when the job can go to the engine core."""
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
        """A job that waits can be given up; one that has begun keeps the thread busy to its end."""
        asked = monotonic()
        async with self._preprocessor:
            # Who had to wait begins when the one before was done, however late this process is woken.
            begins = max(asked, self._preprocessor_free_at)
            self._preprocessor_free_at = begins + sum(map(self._item_s, job.media))
            await asyncio.sleep(self._preprocessor_free_at - monotonic())

    def _item_s(self, medium: MediaItem) -> float:
        cached = False
        if self._caching:
            self._metrics.mm_queries.inc()
            if cached := self.cache.use(medium):
                self._metrics.mm_hits.inc()
        return preprocessing_s(medium, self.profile, cached=cached)


TICK_S = 0.001  # uvloop's timers count whole milliseconds: what falls due within half of one is due
WATCHDOG_S = 5.0  # vLLM's launcher looks so often whether its engine core still lives


def make_core(options: EmulatorOptions) -> EngineCore:
    """Constant times if any was given, else the profile's GPU."""
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
    """One engine. Nothing in it runs while there is nothing to do."""

    def __init__(self, options: EmulatorOptions) -> None:
        self.options = options
        self.metrics = Metrics(options.served_model_name[0])
        self.core = make_core(options)
        self.renderer = Preprocessor(options.profile, self.metrics, options.mm_cache_bytes)
        self.draining = False  # no new jobs
        self.idle = asyncio.Event()
        self.idle.set()
        self._requests = 0  # from their body's end to their answer's
        self._alarm: asyncio.TimerHandle | None = None
        self._backlog = 0  # prompt tokens of sequences without a first token
        self.faults = Faults(self._fault_changed)
        self.dead = False  # the engine core is; the process ends soon
        self.weightless = False  # it slept at level 2 and its weights were not read again
        self.died = asyncio.Event()
        self.exit_s = 0.0  # from the core's death to the process's end
        self.resting = asyncio.Event()  # nothing runs; there may be requests that wait
        self.resting.set()
        self.responsive = asyncio.Event()  # /health answers
        self.responsive.set()
        self.refusing = asyncio.Event()  # connections
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
        """Frames of all videos that wait for their first token: what the vision encoder may hold at the same time."""
        return sum(video_frames(one.job) for one in self.core.sequences if not one.generated)

    def check_admission(self) -> None:
        """Raises RequestError when the queue is full. Requests in rendering do not count, as in vLLM."""
        if self.running + self.waiting >= self.options.max_num_queued_reqs:
            self.metrics.rejections["max_num_queued_reqs"].inc()
            raise unavailable(BUSY)
        if self._backlog >= self.options.max_num_queued_tokens:
            self.metrics.rejections["max_num_queued_tokens"].inc()
            raise unavailable(BACKLOG)

    async def render(self, job: EngineRequest) -> None:
        """Let the API server's time pass; there is none where times are constant."""
        if self.options.constants is None:
            await self.renderer.render(job)

    def die(self, exit_s: float = WATCHDOG_S) -> None:
        """The engine core is gone: every request fails, /health says so, and the process ends after `exit_s`."""
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
        """`arrived`: seconds of the monotonic clock, before rendering."""
        sequence = RunningSequence(job, arrived)
        if self.options.constants is None:
            sequence.hashes = kv_cache.block_hashes([*job.prompt, *(hash(word.strip()) for word in job.answer)])
        return sequence

    async def run(self, sequence: RunningSequence) -> AsyncGenerator[int, None]:
        """Yield how many tokens of the answer are there, each time there are more, to its end. Raises RequestError.

        Of an answer that is not streamed only the end is told.
        Ends early, with tokens missing, when the engine aborts. Closing it (the client went away) gives the job up.
        """
        if self.dead:
            raise internal_error(ENGINE_DEAD)
        if self.weightless:
            raise internal_error(WEIGHTLESS)
        if self.draining:  # it was in rendering when the engine was told to stop
            sequence.ended = True
            return
        if self.options.constants is None:  # else no time has passed since the first look
            self.check_admission()
        loop = asyncio.get_running_loop()
        sequence.queued = monotonic()
        self._backlog += len(sequence.job.prompt)
        self.core.add(sequence, sequence.queued)
        self._arm()
        told = 0
        try:
            while told < len(sequence.job.answer):
                if sequence.generated == told or not (sequence.job.stream or sequence.ended):
                    if sequence.ended and self.dead:
                        raise internal_error(ENGINE_DEAD)
                    if sequence.ended:
                        return
                    sequence.waiter = loop.create_future()
                    await sequence.waiter
                    continue
                told = sequence.generated
                yield told
        finally:
            if not sequence.ended:
                self._end(sequence)

    def _end(self, sequence: RunningSequence) -> None:
        """Before its answer is whole."""
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
        """Wake when the core has something to do; never while it hangs."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        (self.resting.clear if self.running else self.resting.set)()
        if self.core.next_at is not None and "hung" not in self.faults.on:
            wait_s = max(self.core.next_at - monotonic(), 0.0)
            loop = asyncio.get_running_loop()
            # Zero runs in this loop's next pass, so that requests that arrive together begin together.
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
            metrics.prefix_hits.inc(step.found)
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
