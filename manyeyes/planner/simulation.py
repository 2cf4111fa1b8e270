"""Gateway and engines, event by event; an engine is an API server and a GPU. Left out, with reasons: docs/planner.md."""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush, heapreplace
from itertools import count
from random import Random
from time import process_time
from typing import Any

from manyeyes.planner.balancing import POLICIES
from manyeyes.planner.workload import GpuSpec, PlanRequest, SimulatedConversation, SimulationResult, arrivals
from manyeyes.simulator.core import FastForwardCore
from manyeyes.simulator.kv_cache import ConversationKvCache
from manyeyes.simulator.multimodal import DECODING_THREADS, EncoderCache, ProcessorCache, decoding_s, preprocessing_s
from manyeyes.simulator.request import EngineRequest, RunningSequence
from manyeyes.simulator.scheduler import Scheduler


class SimulatedEngine:
    """Threads are the times at which they are free; every queue before them is first come, first served."""

    __slots__ = ("_cache", "_card", "_decoders", "_preprocessor_free_at", "core", "preprocessing_s", "version")

    def __init__(self, card: GpuSpec) -> None:
        self._card = card
        scheduler = Scheduler(
            ConversationKvCache(card.kv_cache_tokens),
            EncoderCache(card.encoder_tokens),
            card.max_num_seqs,
            card.max_num_batched_tokens,
        )
        self.core = FastForwardCore(scheduler, card.profile)
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

    def decoded_at(self, job: EngineRequest, now: float) -> float:
        """When a request that comes `now` has its media decoded; the same as tokenised where there are none."""
        begins = ends = now + self._card.profile.render_ms / 1e3
        for medium in job.media:
            free_at = max(begins, self._decoders[0]) + decoding_s(medium, self._card.profile)
            heapreplace(self._decoders, free_at)
            ends = max(ends, free_at)
        return ends

    def preprocessed_at(self, job: EngineRequest, now: float) -> tuple[float, float]:
        """When the preprocessing thread begins and ends with media that are decoded `now`."""
        begins = max(now, self._preprocessor_free_at)
        takes = 0.0
        for medium in job.media:
            cached = self._cache is not None and self._cache.use(medium)
            takes += preprocessing_s(medium, self._card.profile, cached=cached)
        self.preprocessing_s += takes
        self._preprocessor_free_at = begins + takes
        return begins, begins + takes


CHECK_EVERY = 4096  # events between two calls of `progress`
Handler = Callable[[float, Any], None]
"""Told the time, and what it is about."""
Progress = Callable[[float], None]
"""Told which share of the simulated time is over."""


@dataclass(frozen=True)
class MeasuredSpan:
    """What is simulated: `warm_s` unmeasured, then `measured_s`; nobody comes after that, and everybody is answered."""

    warm_s: float
    measured_s: float


class SimulatedRequest:
    __slots__ = (
        "asked",
        "conversation",
        "engine",
        "measured",
        "number",
        "preprocess_s",
        "preprocessed",
        "sequence",
        "wait_s",
    )

    def __init__(self, conversation: SimulatedConversation, sequence: RunningSequence, measured: bool) -> None:
        self.conversation, self.sequence, self.measured = conversation, sequence, measured
        self.engine = -1
        self.wait_s = self.preprocess_s = 0.0


class Simulation:
    """One run. `run` may be interrupted by KeyboardInterrupt; then what is known so far comes back, marked partial."""

    def __init__(self, ask: PlanRequest, engines: int, span: MeasuredSpan) -> None:
        self.ask, self.span = ask, span
        self.engines = [SimulatedEngine(ask.card) for _ in range(engines)]
        self.balancer = POLICIES[ask.policy](engines, ask.card.in_flight, Random(ask.seed))
        self.outcome = SimulationResult(engines, ask.rps)
        self.under_way = 0
        self.served = [0] * engines
        self._events: list[tuple[float, int, Handler, Any]] = []
        self._number = count()
        self._begins = arrivals(ask.seed, ask.rps / ask.work.turns, span.warm_s + span.measured_s)
        self._conversations = count()
        self._now = 0.0
        self._sequences: dict[RunningSequence, SimulatedRequest] = {}

    def run(self, progress: Progress = lambda share: None) -> SimulationResult:
        outcome, span = self.outcome, self.span
        began = process_time()
        ends_s = span.warm_s + span.measured_s
        self._push(span.warm_s, self._mark, 0)
        self._push(ends_s, self._mark, 1)
        self._next_conversation()
        collecting = gc.isenabled()
        gc.disable()  # nothing here refers to itself in a circle
        try:
            self._loop(progress, ends_s)
        except KeyboardInterrupt:
            outcome.partial = True
        finally:
            if collecting:
                gc.enable()
        now = min(ends_s, self._now)
        outcome.measured_s = max(0.0, min(span.measured_s, now - span.warm_s))
        outcome.cpu_s = process_time() - began
        self._sum_up()
        return outcome

    def _loop(self, progress: Progress, ends_s: float) -> None:
        events, seen = self._events, 0
        while events:
            at, _, handler, about = heappop(events)
            self._now = at
            handler(at, about)
            seen += 1
            if not seen % CHECK_EVERY:
                progress(min(1.0, at / ends_s))

    def _push(self, at: float, handler: Handler, about: Any) -> None:
        heappush(self._events, (at, next(self._number), handler, about))

    def _next_conversation(self) -> None:
        if (at := next(self._begins, None)) is not None:
            conversation = SimulatedConversation(self.ask.work, self.ask.seed, next(self._conversations))
            self._push(at, self._ask, conversation)

    # --- the gateway ----------------------------------------------------------------------------------------------

    def _ask(self, now: float, conversation: SimulatedConversation) -> None:
        known = conversation.turn > 0
        if not known:
            self._next_conversation()
        sequence = RunningSequence(conversation.next_job(), now, chain=conversation.number)
        measured = self.span.warm_s <= now < self.span.warm_s + self.span.measured_s
        request = SimulatedRequest(conversation, sequence, measured)
        self.outcome.all_requests += 1
        self.outcome.requests += measured
        refusals: list[int] = []
        while len(refusals) < self.ask.tries:
            engine = self.balancer.pick(conversation.number, known, refusals)
            if engine is None:
                break
            if not self.engines[engine].full:
                self._send(request, engine, now)
                return
            refusals.append(engine)
        self.outcome.all_ended += 1
        if measured:
            if refusals:
                self.outcome.failed += 1
            else:
                self.outcome.refused += 1

    def _send(self, request: SimulatedRequest, number: int, now: float) -> None:
        engine, job = self.engines[number], request.sequence.job
        request.engine = number
        self.balancer.began(number)
        self.under_way += 1
        at = engine.decoded_at(job, now)
        self._push(at, self._decoded if job.media else self._ready, request)

    def _gone(self, request: SimulatedRequest) -> None:
        """Answered or failed: it is the gateway's no longer."""
        self.balancer.ended(request.engine)
        self.under_way -= 1
        self.outcome.all_ended += 1

    # --- an engine ------------------------------------------------------------------------------------------------

    def _decoded(self, now: float, request: SimulatedRequest) -> None:
        begins, ends = self.engines[request.engine].preprocessed_at(request.sequence.job, now)
        request.wait_s, request.preprocess_s = begins - now, ends - begins
        self._push(ends, self._ready, request)

    def _ready(self, now: float, request: SimulatedRequest) -> None:
        engine, sequence = self.engines[request.engine], request.sequence
        if engine.full:  # vLLM looks a second time after rendering, when the status is already on its way
            self.outcome.failed += request.measured
            self._gone(request)
            return
        sequence.queued = now
        self._sequences[sequence] = request
        before = engine.core.next_at
        engine.core.add(sequence, now)
        if engine.core.next_at != before:
            self._alarm(request.engine, engine)

    def _step(self, now: float, about: tuple[int, int]) -> None:
        number, version = about
        engine = self.engines[number]
        if version != engine.version:
            return
        for sequence, _ in engine.core.advance():
            if sequence.ended:
                self._answered(now, self._sequences.pop(sequence))
        self._alarm(number, engine)

    def _alarm(self, number: int, engine: SimulatedEngine) -> None:
        engine.version += 1
        if engine.core.next_at is not None:
            self._push(engine.core.next_at, self._step, (number, engine.version))

    def _answered(self, now: float, request: SimulatedRequest) -> None:
        self._gone(request)
        outcome, span, conversation = self.outcome, self.span, request.conversation
        self.served[request.engine] += 1
        ends_s = span.warm_s + span.measured_s
        outcome.ended_in_time += span.warm_s <= now < ends_s
        if request.measured:
            self._record(request)
        self.balancer.answered(conversation.number, request.engine, last=conversation.ended)
        if not conversation.ended:
            work = self.ask.work
            again = now + work.pause_s(self.ask.seed, conversation.number, conversation.turn - 1)
            if again < ends_s:
                self._push(again, self._ask, conversation)

    # --- what is kept ---------------------------------------------------------------------------------------------

    def _record(self, request: SimulatedRequest) -> None:
        outcome, sequence = self.outcome, request.sequence
        outcome.total_s.append(sequence.last_token - sequence.arrived)
        outcome.first_s.append(sequence.first_token - sequence.arrived)
        outcome.tokens += sequence.generated
        outcome.pictures += len(sequence.job.media)
        stages = outcome.stages_s
        stages[0] += sequence.queued - sequence.arrived - request.wait_s - request.preprocess_s
        stages[1] += request.wait_s
        stages[2] += request.preprocess_s
        stages[3] += sequence.scheduled - sequence.queued
        stages[4] += sequence.first_token - sequence.scheduled
        stages[5] += sequence.last_token - sequence.first_token

    def _mark(self, now: float, end: int) -> None:
        before, after = self.outcome.backlog
        self.outcome.backlog = (before, self.under_way) if end else (self.under_way, after)
        if end:
            self._use(now)

    def _use(self, now: float) -> None:
        """Shares of time until now, the warm-up included: it is short, and work comes at the same rate in it."""
        outcome, spent = self.outcome, [engine.core.spent for engine in self.engines]
        whole = max(1e-9, now * len(self.engines))
        busy = max(1e-9, sum(one.busy_s for one in spent))
        outcome.preprocessing_busy = min(1.0, sum(engine.preprocessing_s for engine in self.engines) / whole)
        outcome.gpu_busy = min(1.0, busy / whole)
        outcome.encode_share = sum(one.encode_s for one in spent) / busy
        outcome.prefill_share = sum(one.prefill_s for one in spent) / busy
        outcome.kv_used = sum(one.kv_s for one in spent) / busy

    def _sum_up(self) -> None:
        outcome, spent = self.outcome, [engine.core.spent for engine in self.engines]
        if not outcome.gpu_busy:
            self._use(max(self._now, 1e-9))
        for one in spent:
            for reason, seconds in one.waited_s.items():
                outcome.waited_s[reason] = outcome.waited_s.get(reason, 0.0) + seconds
        outcome.preempted = sum(one.preempted for one in spent)
        queried = sum(one.queried for one in spent)
        outcome.cached_share = sum(one.found for one in spent) / queried if queried else 0.0
        outcome.most_per_engine, outcome.fewest_per_engine = max(self.served), min(self.served)
