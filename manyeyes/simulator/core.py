"""The engine core: time passes in iterations. It has no clock of its own: it is told the time, and says when it wants to be
told again."""

from dataclasses import dataclass, field
from typing import Protocol

from manyeyes.simulator.profile import Profile
from manyeyes.simulator.scheduler import Batch, Scheduler
from manyeyes.simulator.sequence import Sequence
from manyeyes.simulator.timing import iteration_s

# Iterations follow each other without a gap even when the process is woken late, so that a busy machine does not make the
# emulated GPU slower. A process that stood still for longer than this has lost the time.
LOST_S = 1.0


@dataclass
class Step:
    """What one iteration brought."""

    at: float  # seconds of the monotonic clock
    produced: list[tuple[Sequence, int]] = field(default_factory=list)  # one token more, and how many that makes
    queried: int = 0  # tokens looked up in the prefix cache
    found: int = 0  # tokens found there
    preempted: int = 0
    took_s: float = 0.0  # how long the emulated GPU worked on it


class Core(Protocol):
    """What the engine drives."""

    next_at: float | None  # when to call `advance` again; None while there is nothing to do
    slowness: float  # what every time is multiplied by

    @property
    def running(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def kv_usage(self) -> float: ...
    @property
    def sequences(self) -> list[Sequence]: ...
    def add(self, sequence: Sequence, now: float) -> None: ...
    def remove(self, sequence: Sequence) -> None: ...
    def advance(self, now: float) -> list[Step]: ...
    def pause(self, *, new_only: bool) -> None: ...
    def resume(self, now: float) -> None: ...
    def forget(self) -> None: ...


class BatchedCore:
    """Continuous batching on one emulated GPU."""

    def __init__(self, scheduler: Scheduler, profile: Profile) -> None:
        self.scheduler = scheduler
        self.profile = profile
        self.slowness = 1.0
        self.next_at: float | None = None
        self._batch: Batch | None = None
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
    def sequences(self) -> list[Sequence]:
        return [*self.scheduler.running, *self.scheduler.waiting]

    def add(self, sequence: Sequence, now: float) -> None:
        """Queue a sequence. An iteration under way is not interrupted."""
        self.scheduler.waiting.append(sequence)
        self._start(now)

    def remove(self, sequence: Sequence) -> None:
        """Give up a sequence; its blocks are free at once, its part of the iteration under way is lost."""
        self.scheduler.remove(sequence)

    def advance(self, now: float) -> list[Step]:
        """Everything that has happened until `now`."""
        steps = []
        if self.next_at is not None and now - self.next_at > LOST_S:
            self.next_at = now
        while self.next_at is not None and self.next_at <= now:
            at = self.next_at
            if self._batch is not None:
                produced = self.scheduler.finish(self._batch)
                done = self._batch
                steps.append(Step(at, produced, done.queried, done.found, done.preempted, self._took_s))
            batch = Batch() if self._paused else self.scheduler.schedule(at)
            if batch.sequences:
                self._batch = batch
                self._took_s = iteration_s(batch, self.profile) * self.slowness
                self.next_at = at + self._took_s
            else:
                self._batch = self.next_at = None
        return steps

    def pause(self, *, new_only: bool) -> None:
        """Take nothing from the queue; unless `new_only`, compute nothing at all either."""
        self.scheduler.admits = False
        self._paused = not new_only

    def resume(self, now: float) -> None:
        self.scheduler.admits = True
        self._paused = False
        self._start(now)

    def forget(self) -> None:
        """Empty the caches; who runs has to be computed again."""
        self.scheduler.put_all_back()
        self.scheduler.kv.forget()
        self.scheduler.encoder.forget()

    def _start(self, now: float) -> None:
        if self.next_at is None:
            self.next_at = now
