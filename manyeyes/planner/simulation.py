"""Discrete-event simulation of the gateway and its engines; an engine is an API server and a GPU.

docs/load-testing.md lists what the simulation leaves out.
"""

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
    """One engine. Each thread is represented by the time at which it is free; all queues are first come, first served."""

    __slots__ = ("_cache", "_decoders", "_gpu_spec", "_preprocessor_free_at", "core", "preprocessing_s", "version")

    def __init__(self, gpu_spec: GpuSpec) -> None:
        self._gpu_spec = gpu_spec
        scheduler = Scheduler(
            ConversationKvCache(gpu_spec.kv_cache_tokens),
            EncoderCache(gpu_spec.encoder_tokens),
            gpu_spec.max_num_seqs,
            gpu_spec.max_num_batched_tokens,
        )
        self.core = FastForwardCore(scheduler, gpu_spec.profile)
        self.version = 0  # version of the core's `next_at`; timers of older versions are ignored
        self.preprocessing_s = 0.0  # busy time of the preprocessing thread
        self._cache = ProcessorCache(gpu_spec.mm_cache_bytes) if gpu_spec.mm_cache_bytes else None
        self._decoders = [0.0] * DECODING_THREADS
        self._preprocessor_free_at = 0.0

    @property
    def full(self) -> bool:
        """Whether vLLM would refuse a request. Requests in rendering do not count."""
        scheduler = self.core.scheduler
        return len(scheduler.running) + len(scheduler.waiting) >= self._gpu_spec.in_flight

    def decoded_at(self, job: EngineRequest, now: float) -> float:
        """When the media of a request that arrives `now` are decoded; without media, when its prompt is tokenised."""
        begins_s = ends_s = now + self._gpu_spec.profile.render_ms / 1e3
        for medium in job.media:
            free_at = max(begins_s, self._decoders[0]) + decoding_s(medium, self._gpu_spec.profile)
            heapreplace(self._decoders, free_at)
            ends_s = max(ends_s, free_at)
        return ends_s

    def preprocessed_at(self, job: EngineRequest, now: float) -> tuple[float, float]:
        """When the preprocessing thread starts and finishes media that are decoded `now`."""
        begins = max(now, self._preprocessor_free_at)
        duration_s = 0.0
        for medium in job.media:
            cached = self._cache is not None and self._cache.use(medium)
            duration_s += preprocessing_s(medium, self._gpu_spec.profile, cached=cached)
        self.preprocessing_s += duration_s
        self._preprocessor_free_at = begins + duration_s
        return begins, begins + duration_s


CHECK_EVERY = 4096  # events between two calls of `progress`
Handler = Callable[[float, Any], None]
"""Called with the time and the subject of an event."""
Progress = Callable[[float], None]
"""Called with the fraction of the simulated time that is over."""


@dataclass(frozen=True)
class MeasuredSpan:
    """The simulated time: `warm_s` without measuring, then `measured_s`. After that no user arrives; open requests finish."""

    warm_s: float
    measured_s: float


class SimulatedRequest:
    __slots__ = (
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
    """One simulation. On KeyboardInterrupt `run` returns the results so far, marked partial."""

    def __init__(self, plan_request: PlanRequest, engines: int, span: MeasuredSpan) -> None:
        self.plan_request, self.span = plan_request, span
        self.engines = [SimulatedEngine(plan_request.gpu_spec) for _ in range(engines)]
        self.balancer = POLICIES[plan_request.policy](
            engines, plan_request.gpu_spec.in_flight, Random(plan_request.seed)
        )
        self.outcome = SimulationResult(engines, plan_request.rps)
        self.in_flight = 0
        self.served = [0] * engines
        self._events: list[tuple[float, int, Handler, Any]] = []
        self._number = count()
        self._arrivals = arrivals(
            plan_request.seed, plan_request.rps / plan_request.work.turns, span.warm_s + span.measured_s
        )
        self._conversations = count()
        self._now = 0.0
        self._sequences: dict[RunningSequence, SimulatedRequest] = {}

    def run(self, progress: Progress = lambda share: None) -> SimulationResult:
        outcome, span = self.outcome, self.span
        started_s = process_time()
        ends_s = span.warm_s + span.measured_s
        self._push(span.warm_s, self._record_backlog, 0)
        self._push(ends_s, self._record_backlog, 1)
        self._next_conversation()
        collecting = gc.isenabled()
        gc.disable()  # no reference cycles here
        try:
            self._loop(progress, ends_s)
        except KeyboardInterrupt:
            outcome.partial = True
        finally:
            if collecting:
                gc.enable()
        now = min(ends_s, self._now)
        outcome.measured_s = max(0.0, min(span.measured_s, now - span.warm_s))
        outcome.cpu_s = process_time() - started_s
        self._sum_up()
        return outcome

    def _loop(self, progress: Progress, ends_s: float) -> None:
        events, processed = self._events, 0
        while events:
            at, _, handler, subject = heappop(events)
            self._now = at
            handler(at, subject)
            processed += 1
            if not processed % CHECK_EVERY:
                progress(min(1.0, at / ends_s))

    def _push(self, at: float, handler: Handler, subject: Any) -> None:
        heappush(self._events, (at, next(self._number), handler, subject))

    def _next_conversation(self) -> None:
        if (at := next(self._arrivals, None)) is not None:
            conversation = SimulatedConversation(
                self.plan_request.work, self.plan_request.seed, next(self._conversations)
            )
            self._push(at, self._arrive, conversation)

    # --- the gateway ----------------------------------------------------------------------------------------------

    def _arrive(self, now: float, conversation: SimulatedConversation) -> None:
        known = conversation.turn > 0
        if not known:
            self._next_conversation()
        sequence = RunningSequence(conversation.next_job(), now, chain=conversation.number)
        measured = self.span.warm_s <= now < self.span.warm_s + self.span.measured_s
        request = SimulatedRequest(conversation, sequence, measured)
        self.outcome.all_requests += 1
        self.outcome.requests += measured
        refusals: list[int] = []
        while len(refusals) < self.plan_request.tries:
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
        self.in_flight += 1
        at = engine.decoded_at(job, now)
        self._push(at, self._decoded if job.media else self._ready, request)

    def _remove(self, request: SimulatedRequest) -> None:
        """Removes an answered or failed request from the gateway's counts."""
        self.balancer.ended(request.engine)
        self.in_flight -= 1
        self.outcome.all_ended += 1

    # --- an engine ------------------------------------------------------------------------------------------------

    def _decoded(self, now: float, request: SimulatedRequest) -> None:
        begins, ends = self.engines[request.engine].preprocessed_at(request.sequence.job, now)
        request.wait_s, request.preprocess_s = begins - now, ends - begins
        self._push(ends, self._ready, request)

    def _ready(self, now: float, request: SimulatedRequest) -> None:
        engine, sequence = self.engines[request.engine], request.sequence
        if engine.full:  # vLLM checks again after rendering, when the status is already sent
            self.outcome.failed += request.measured
            self._remove(request)
            return
        sequence.queued = now
        self._sequences[sequence] = request
        before = engine.core.next_at
        engine.core.add(sequence, now)
        if engine.core.next_at != before:
            self._schedule_step(request.engine, engine)

    def _step(self, now: float, subject: tuple[int, int]) -> None:
        number, version = subject
        engine = self.engines[number]
        if version != engine.version:
            return
        for sequence, _ in engine.core.advance():
            if sequence.ended:
                self._answered(now, self._sequences.pop(sequence))
        self._schedule_step(number, engine)

    def _schedule_step(self, number: int, engine: SimulatedEngine) -> None:
        engine.version += 1
        if engine.core.next_at is not None:
            self._push(engine.core.next_at, self._step, (number, engine.version))

    def _answered(self, now: float, request: SimulatedRequest) -> None:
        self._remove(request)
        outcome, span, conversation = self.outcome, self.span, request.conversation
        self.served[request.engine] += 1
        ends_s = span.warm_s + span.measured_s
        outcome.ended_in_time += span.warm_s <= now < ends_s
        if request.measured:
            self._record(request)
        self.balancer.answered(conversation.number, request.engine, last=conversation.ended)
        if not conversation.ended:
            work = self.plan_request.work
            next_s = now + work.pause_s(self.plan_request.seed, conversation.number, conversation.turn - 1)
            if next_s < ends_s:
                self._push(next_s, self._arrive, conversation)

    # --- results --------------------------------------------------------------------------------------------------

    def _record(self, request: SimulatedRequest) -> None:
        outcome, sequence = self.outcome, request.sequence
        outcome.total_s.append(sequence.last_token - sequence.arrived)
        outcome.first_s.append(sequence.first_token - sequence.arrived)
        outcome.tokens += sequence.generated
        outcome.images += len(sequence.job.media)
        stages = outcome.stages_s
        stages[0] += sequence.queued - sequence.arrived - request.wait_s - request.preprocess_s
        stages[1] += request.wait_s
        stages[2] += request.preprocess_s
        stages[3] += sequence.scheduled - sequence.queued
        stages[4] += sequence.first_token - sequence.scheduled
        stages[5] += sequence.last_token - sequence.first_token

    def _record_backlog(self, now: float, end: int) -> None:
        before, after = self.outcome.backlog
        self.outcome.backlog = (before, self.in_flight) if end else (self.in_flight, after)
        if end:
            self._measure_use(now)

    def _measure_use(self, now: float) -> None:
        """Fractions of the time so far. The warm-up is included: it is short and has the same arrival rate."""
        outcome, spent = self.outcome, [engine.core.spent for engine in self.engines]
        total_s = max(1e-9, now * len(self.engines))
        busy = max(1e-9, sum(engine_spent.busy_s for engine_spent in spent))
        outcome.preprocessing_busy = min(1.0, sum(engine.preprocessing_s for engine in self.engines) / total_s)
        outcome.gpu_busy = min(1.0, busy / total_s)
        outcome.encode_share = sum(engine_spent.encode_s for engine_spent in spent) / busy
        outcome.prefill_share = sum(engine_spent.prefill_s for engine_spent in spent) / busy
        outcome.kv_used = sum(engine_spent.kv_s for engine_spent in spent) / busy

    def _sum_up(self) -> None:
        outcome, spent = self.outcome, [engine.core.spent for engine in self.engines]
        if not outcome.gpu_busy:
            self._measure_use(max(self._now, 1e-9))
        for engine_spent in spent:
            for reason, seconds in engine_spent.waited_s.items():
                outcome.waited_s[reason] = outcome.waited_s.get(reason, 0.0) + seconds
        outcome.preempted = sum(engine_spent.preempted for engine_spent in spent)
        queried = sum(engine_spent.queried for engine_spent in spent)
        outcome.cached_share = sum(engine_spent.cached_tokens for engine_spent in spent) / queried if queried else 0.0
        outcome.max_per_engine, outcome.min_per_engine = max(self.served), min(self.served)
