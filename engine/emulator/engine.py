"""The engine: admits jobs, lets time pass for them, and counts."""

import asyncio
from collections.abc import AsyncGenerator
from time import monotonic

from engine.emulator.job import Job
from engine.emulator.metrics import Metrics
from engine.emulator.options import Options
from engine.emulator.timing import due_s, first_token_s, tokens_due

# Nobody sees the single tokens of an answer that comes as a whole. It still wakes now and then, because the token
# counter has to move: to a probe, an engine whose counter stands still is a hung one.
WHOLE_ANSWER_STEP_S = 0.25


def wake(nap: asyncio.Future[None]) -> None:
    if not nap.done():
        nap.set_result(None)


class Engine:
    """Runs up to `max_num_seqs` jobs at once; the others wait in the order they came."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.metrics = Metrics(options.served_model_name[0])
        self.running = 0
        self.waiting = 0
        self.draining = False  # no new jobs
        self.aborting = False  # jobs end now
        self._kv_tokens = 0
        self._seats = asyncio.Semaphore(options.max_num_seqs)
        self.idle = asyncio.Event()
        self.idle.set()
        self._naps: set[asyncio.Future[None]] = set()
        self.metrics.watch(lambda: self.running, lambda: self.waiting, self._kv_usage)

    @property
    def full(self) -> bool:
        """No request more is taken."""
        return self.running + self.waiting >= self.options.max_num_queued_reqs

    def abort_all(self) -> None:
        """End every job where it is."""
        self.aborting = True
        for nap in self._naps:
            wake(nap)

    async def run(self, job: Job) -> AsyncGenerator[int, None]:
        """Yield how many tokens of the answer are there, each time there are more, from its admission to its end.

        Ends early, with tokens missing, when the engine aborts. Closing it (the client went away) frees the seat.
        """
        arrived = monotonic()
        self.idle.clear()
        self.waiting += 1
        try:
            await self._seats.acquire()
        except asyncio.CancelledError:
            self.waiting -= 1
            self._note_idle()
            raise
        self.waiting -= 1
        self.running += 1
        self._kv_tokens += job.prompt_tokens
        sent = 0
        try:
            async for sent in self._decode(job, arrived):
                yield sent
            self.metrics.latency_s.observe(monotonic() - arrived)
            self.metrics.finished[job.finish_reason if sent == len(job.tokens) else "abort"].inc()
        finally:
            self._kv_tokens -= job.prompt_tokens
            self.running -= 1
            self._seats.release()
            self._note_idle()

    async def _decode(self, job: Job, arrived: float) -> AsyncGenerator[int, None]:
        admitted = last = monotonic()
        first_s = first_token_s(self.options.first_token_s, self.options.image_s, job.media)
        token_s = self.options.token_s
        total = len(job.tokens)
        step_s = 0.0 if job.stream else WHOLE_ANSWER_STEP_S
        sent = 0
        while sent < total:
            wake_at = max(admitted + due_s(first_s, token_s, sent + 1), last + step_s if sent else 0.0)
            wake_at = min(wake_at, admitted + due_s(first_s, token_s, total))
            await self._nap(wake_at - monotonic())
            if self.aborting:
                return
            now = monotonic()
            fresh = max(1, tokens_due(now - admitted, first_s, token_s, total) - sent)
            if sent == 0:
                self._count_prompt(job.prompt_tokens, now - arrived)
                self._count_tokens(fresh - 1, 0.0)
            else:
                self._count_tokens(fresh, now - last)
            self.metrics.generation_tokens.inc(fresh)
            sent += fresh
            last = now
            yield sent

    def _count_prompt(self, tokens: int, first_token_s: float) -> None:
        self.metrics.prompt_tokens.inc(tokens)
        self.metrics.prefix_queries.inc(tokens)
        self.metrics.iteration_tokens.observe(tokens)
        self.metrics.first_token_s.observe(first_token_s)

    def _count_tokens(self, tokens: int, took_s: float) -> None:
        """Each token of a job counts as an iteration of its own: jobs do not share iterations here."""
        for _ in range(tokens):
            self.metrics.inter_token_s.observe(took_s / tokens)
            self.metrics.iteration_tokens.observe(1)

    def _note_idle(self) -> None:
        if not self.running and not self.waiting:
            self.idle.set()

    def _kv_usage(self) -> float:
        """The prompts of running jobs, as a share of what the largest allowed batch could hold."""
        return self._kv_tokens / (self.options.max_num_seqs * self.options.max_model_len)

    async def _nap(self, seconds: float) -> None:
        """A sleep that `abort_all` ends. Zero and less still gives others their turn."""
        if seconds <= 0 or self.aborting:
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        nap: asyncio.Future[None] = loop.create_future()
        alarm = loop.call_later(seconds, wake, nap)
        self._naps.add(nap)
        try:
            await nap
        finally:
            alarm.cancel()
            self._naps.discard(nap)
