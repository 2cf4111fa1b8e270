"""The engine core for a simulation: iterations in which nothing changes but the tokens are passed in one leap.

While all running sequences only answer, each iteration is the one before with `n` more tokens of context. So many of them
last `k x first + n x context x k(k-1)/2`, and nothing else happens before the first answer ends, somebody new is let in, or
blocks run out. Tests hold this to `BatchedCore`, which takes every iteration one by one.
"""

from dataclasses import dataclass, field
from math import ceil, sqrt

from manyeyes.simulator.block_hash import BLOCK
from manyeyes.simulator.profile import Profile
from manyeyes.simulator.scheduler import Batch, Scheduler
from manyeyes.simulator.sequence import Sequence
from manyeyes.simulator.timing import encoding_s, iteration_s, prefill_s


@dataclass
class Spent:
    """Where the GPU's time went, and what requests in the queue waited for. Seconds."""

    busy_s: float = 0.0
    encode_s: float = 0.0
    prefill_s: float = 0.0
    kv_s: float = 0.0  # the share of KV blocks in use, over time
    waited_s: dict[str, float] = field(default_factory=dict)  # by Scheduler.blocked
    preempted: int = 0
    queried: int = 0  # tokens looked up in the prefix cache
    found: int = 0


class LeapingCore:
    """Continuous batching on one GPU, told only the times at which something changes."""

    def __init__(self, scheduler: Scheduler, profile: Profile) -> None:
        self.scheduler = scheduler
        self.profile = profile
        self.next_at: float | None = None  # when to call `advance`; it can become earlier by `add`
        self.spent = Spent()
        self._batch: Batch | None = None
        self._began = 0.0
        self._first_s = 0.0  # the leap's first iteration
        self._more_s = 0.0  # by which each one is longer than the one before
        self._times = 0

    def add(self, sequence: Sequence, now: float) -> None:
        """Queue a sequence. The iteration under way is not interrupted; the ones planned after it are."""
        scheduler = self.scheduler
        waiting = bool(scheduler.waiting)  # then the first of them could not be let in, and this one comes after it
        scheduler.waiting.append(sequence)
        if self.next_at is None:
            self.next_at = now
        elif not waiting and self._times > 1 and len(scheduler.running) < scheduler.max_num_seqs:
            times = self._until(now - self._began)
            if times < self._times:
                self._times = times
                self.next_at = self._began + self._length(times)

    def advance(self) -> list[tuple[Sequence, int]]:
        """What has happened until `next_at`: who got a token in the last iteration, and how many that makes."""
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

    def _repeats(self, batch: Batch) -> int:
        """How many iterations are alike, this one included."""
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

    def _count(self, batch: Batch, lasted_s: float) -> None:
        spent, profile = self.spent, self.profile
        spent.busy_s += lasted_s
        if batch.encoded:
            spent.encode_s += encoding_s(batch.encoded, profile)
        spent.prefill_s += prefill_s(batch, profile)
        spent.kv_s += self.scheduler.kv.usage * lasted_s
        if waiting := len(self.scheduler.waiting):
            reason = self.scheduler.blocked
            spent.waited_s[reason] = spent.waited_s.get(reason, 0.0) + waiting * lasted_s
        spent.preempted += batch.preempted
        spent.queried += batch.queried
        spent.found += batch.found
