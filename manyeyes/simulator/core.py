"""The engine core, which computes in iterations. It has no clock: the caller passes the time to `advance`, and `next_at` is the
time of the next call. `FastForwardCore` combines iterations in which only the number of tokens changes into one step."""

from dataclasses import dataclass, field
from math import ceil, sqrt
from typing import Protocol

from manyeyes.simulator.kv_cache import BLOCK
from manyeyes.simulator.profile import TimingProfile
from manyeyes.simulator.request import RunningSequence
from manyeyes.simulator.scheduler import ScheduledBatch, Scheduler

# Iterations follow one another without a gap even if the process wakes up late, so that a busy machine does not slow down the
# emulated GPU. If the process was suspended for longer than this, the lost time is not made up.
MAX_SUSPENSION_S = 1.0


def iteration_s(batch: ScheduledBatch, profile: TimingProfile) -> float:
    """Seconds from the start of an iteration to its tokens."""
    return (
        profile.iteration_ms / 1e3
        + prefill_s(batch, profile)
        + profile.decode_us / 1e6 * batch.decode_sequences
        + profile.context_ns / 1e9 * batch.context_tokens
        + (encoding_s(batch.encoded, profile) if batch.encoded else 0.0)
    )


def prefill_s(batch: ScheduledBatch, profile: TimingProfile) -> float:
    """Seconds of an iteration for its prompt tokens."""
    return profile.prefill_us / 1e6 * batch.prefill_tokens + profile.prefill_pair_ns / 1e9 * batch.prefill_pairs


def encoding_s(encoded: list[int], profile: TimingProfile) -> float:
    """Seconds of an iteration for encoding items with these numbers of vision tokens."""
    pairs = sum(tokens * tokens for tokens in encoded) / 2 if profile.encode_pair_ns else 0.0
    items_s, tokens_s = profile.encode_item_ms / 1e3 * len(encoded), profile.encode_us / 1e6 * sum(encoded)
    return items_s + tokens_s + profile.encode_pair_ns / 1e9 * pairs


@dataclass
class EngineStep:
    at: float  # seconds of the monotonic clock
    produced: list[tuple[RunningSequence, int]] = field(default_factory=list)  # sequences and their token count
    queried: int = 0  # tokens looked up in the prefix cache
    cached_tokens: int = 0  # tokens found there
    preempted: int = 0
    took_s: float = 0.0  # time that the emulated GPU worked on it


class EngineCore(Protocol):
    next_at: float | None  # when to call `advance` again; None if there is nothing to do
    slowness: float  # factor for all times

    @property
    def running(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def kv_usage(self) -> float: ...
    @property
    def sequences(self) -> list[RunningSequence]: ...
    def add(self, sequence: RunningSequence, now: float) -> None: ...
    def remove(self, sequence: RunningSequence) -> None: ...
    def advance(self, now: float) -> list[EngineStep]: ...
    def pause(self, *, new_only: bool) -> None: ...
    def resume(self, now: float) -> None: ...
    def forget(self) -> None: ...


class BatchedCore:
    """Continuous batching on one emulated GPU."""

    def __init__(self, scheduler: Scheduler, profile: TimingProfile) -> None:
        self.scheduler = scheduler
        self.profile = profile
        self.slowness = 1.0
        self.next_at: float | None = None
        self._batch: ScheduledBatch | None = None
        self._took_s = 0.0
        self._paused = False

    @property
    def running(self) -> int:
        return len(self.scheduler.running)

    @property
    def waiting(self) -> int:
        return len(self.scheduler.waiting)

    @property
    def kv_usage(self) -> float:
        return self.scheduler.kv.usage

    @property
    def sequences(self) -> list[RunningSequence]:
        return [*self.scheduler.running, *self.scheduler.waiting]

    def add(self, sequence: RunningSequence, now: float) -> None:
        """Queue a sequence. The current iteration is not interrupted."""
        self.scheduler.waiting.append(sequence)
        self._start(now)

    def remove(self, sequence: RunningSequence) -> None:
        """Abort a sequence. Its blocks are free immediately; its part of the current iteration is lost."""
        self.scheduler.remove(sequence)

    def advance(self, now: float) -> list[EngineStep]:
        """Return all iterations that ended until `now`."""
        steps = []
        if self.next_at is not None and now - self.next_at > MAX_SUSPENSION_S:
            self.next_at = now
        while self.next_at is not None and self.next_at <= now:
            at = self.next_at
            if self._batch is not None:
                produced = self.scheduler.finish(self._batch)
                finished = self._batch
                steps.append(
                    EngineStep(at, produced, finished.queried, finished.cached_tokens, finished.preempted, self._took_s)
                )
            batch = ScheduledBatch() if self._paused else self.scheduler.schedule(at)
            if batch.sequences:
                self._batch = batch
                self._took_s = iteration_s(batch, self.profile) * self.slowness
                self.next_at = at + self._took_s
            else:
                self._batch = self.next_at = None
        return steps

    def pause(self, *, new_only: bool) -> None:
        """Stop admitting sequences from the queue; unless `new_only`, also stop computing."""
        self.scheduler.admits = False
        self._paused = not new_only

    def resume(self, now: float) -> None:
        self.scheduler.admits = True
        self._paused = False
        self._start(now)

    def forget(self) -> None:
        """Empty the caches. Running sequences must be computed again."""
        self.scheduler.preempt_all()
        self.scheduler.kv.forget()
        self.scheduler.encoder.forget()

    def _start(self, now: float) -> None:
        if self.next_at is None:
            self.next_at = now


@dataclass
class TimeSpent:
    """How the GPU's time was used, and what requests in the queue waited for; in seconds."""

    busy_s: float = 0.0
    encode_s: float = 0.0
    prefill_s: float = 0.0
    kv_s: float = 0.0  # fraction of KV blocks in use, integrated over time
    waited_s: dict[str, float] = field(default_factory=dict)  # by Scheduler.blocked
    preempted: int = 0
    queried: int = 0  # tokens looked up in the prefix cache
    cached_tokens: int = 0


class FastForwardCore:
    """Continuous batching on one GPU, advanced only at the times at which something changes."""

    def __init__(self, scheduler: Scheduler, profile: TimingProfile) -> None:
        self.scheduler = scheduler
        self.profile = profile
        self.next_at: float | None = None  # when to call `advance`; `add` can make it earlier
        self.spent = TimeSpent()
        self._batch: ScheduledBatch | None = None
        self._began = 0.0
        self._first_s = 0.0  # duration of the first combined iteration
        self._more_s = 0.0  # by which each iteration is longer than the iteration before
        self._times = 0

    def add(self, sequence: RunningSequence, now: float) -> None:
        """Queue a sequence. The current iteration is not interrupted; the combined iterations after it are."""
        scheduler = self.scheduler
        # If sequences wait already, the first of them cannot be admitted yet, and this sequence is behind them.
        waiting = bool(scheduler.waiting)
        scheduler.waiting.append(sequence)
        if self.next_at is None:
            self.next_at = now
        elif not waiting and self._times > 1 and len(scheduler.running) < scheduler.max_num_seqs:
            times = self._until(now - self._began)
            if times < self._times:
                self._times = times
                self.next_at = self._began + self._length(times)

    def advance(self) -> list[tuple[RunningSequence, int]]:
        """Advance to `next_at`. Return the sequences with a new token in the last iteration, and their number of tokens."""
        assert self.next_at is not None
        at, scheduler, produced = self.next_at, self.scheduler, []
        if self._batch is not None:
            self._count(self._batch, at - self._began)
            if (more := self._times - 1) > 0:
                grow = scheduler.kv.grow
                for sequence in self._batch.sequences:
                    sequence.generated += more
                    sequence.computed += more
                    grow(sequence, sequence.computed)
            produced = scheduler.finish(self._batch)
            for sequence, number in produced:
                if number == 1:
                    sequence.first_token = at
                if sequence.ended:
                    sequence.last_token = at
        batch = scheduler.schedule(at)
        if not batch.sequences:
            self._batch = self.next_at = None
            return produced
        self._batch, self._began = batch, at
        self._first_s = iteration_s(batch, self.profile)
        self._more_s = self.profile.context_ns / 1e9 * batch.decode_sequences
        self._times = self._repeats(batch)
        self.next_at = at + self._length(self._times)
        return produced

    def _repeats(self, batch: ScheduledBatch) -> int:
        """Number of equal iterations, including the current iteration."""
        running = len(self.scheduler.running)
        if batch.prefilled or batch.preempted or len(batch.sequences) < running:
            return 1
        # A sequence may need a block in the first iteration and then in every sixteenth.
        room = BLOCK * (self.scheduler.kv.free // running - 1)
        if room < 1:
            return 1
        left = min(len(sequence.job.answer) - sequence.generated for sequence in batch.sequences)
        return min(left, 1 + room)

    def _length(self, times: int) -> float:
        return times * self._first_s + self._more_s * (times * (times - 1) / 2)

    def _until(self, elapsed_s: float) -> int:
        """The first iteration that ends at `elapsed_s` or later."""
        first, more = self._first_s, self._more_s
        if more:
            # more/2 k^2 + (first - more/2) k = elapsed
            half = first - more / 2
            times = ceil((sqrt(half * half + 2 * more * elapsed_s) - half) / more)
        else:
            times = ceil(elapsed_s / first) if first else 1
        times = max(1, times)
        while times > 1 and self._length(times - 1) >= elapsed_s:
            times -= 1
        while self._length(times) < elapsed_s:
            times += 1
        return times

    def _count(self, batch: ScheduledBatch, duration_s: float) -> None:
        spent, profile = self.spent, self.profile
        spent.busy_s += duration_s
        if batch.encoded:
            spent.encode_s += encoding_s(batch.encoded, profile)
        spent.prefill_s += prefill_s(batch, profile)
        spent.kv_s += self.scheduler.kv.usage * duration_s
        if waiting := len(self.scheduler.waiting):
            reason = self.scheduler.blocked
            spent.waited_s[reason] = spent.waited_s.get(reason, 0.0) + waiting * duration_s
        spent.preempted += batch.preempted
        spent.queried += batch.queried
        spent.cached_tokens += batch.cached_tokens
