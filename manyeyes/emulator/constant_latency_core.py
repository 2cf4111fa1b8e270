"""An engine core with constant times, without batching, caches or a GPU model, for tests that do not depend on
timing."""

from collections import deque
from heapq import heappop, heappush

from manyeyes.emulator.cli import ConstantTimes
from manyeyes.simulator.core import EngineStep
from manyeyes.simulator.request import RunningSequence


class ConstantLatencyCore:
    """Runs up to `seats` sequences concurrently without influence on each other; others wait in the order of
    arrival."""

    def __init__(self, times: ConstantTimes, seats: int, context: int) -> None:
        self._times = times
        self._seats = seats
        self._context = context  # maximum number of tokens of a sequence
        self._waiting: deque[RunningSequence] = deque()
        self._running: set[RunningSequence] = set()
        self._due: list[
            tuple[float, int, RunningSequence]
        ] = []  # time of each sequence's next token; the number only breaks ties
        self._number = 0
        self._paused = self._admits_none = False
        self.slowness = 1.0
        self.next_at: float | None = None

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def kv_usage(self) -> float:
        """Prompt tokens of running sequences, as a share of the largest allowed batch."""
        return sum(len(sequence.job.prompt) for sequence in self._running) / (self._seats * self._context)

    @property
    def sequences(self) -> list[RunningSequence]:
        return [*self._running, *self._waiting]

    def add(self, sequence: RunningSequence, now: float) -> None:
        self._waiting.append(sequence)
        self._fill(now)

    def remove(self, sequence: RunningSequence) -> None:
        if sequence in self._waiting:
            self._waiting.remove(sequence)
        self._running.discard(sequence)
        if self._waiting:
            self.next_at = 0.0  # a waiting sequence gets the seat in the next advance()

    def advance(self, now: float) -> list[EngineStep]:
        steps = []
        while self._due and self._due[0][0] <= now and not self._paused:
            at, _, sequence = heappop(self._due)
            if sequence not in self._running:
                continue
            sequence.generated += 1
            if sequence.answered:
                sequence.ended = True
                self._running.discard(sequence)
                self._fill(at)
            else:
                self._expect(sequence, at + self._times.token_s * self.slowness)
            queried = len(sequence.job.prompt) if sequence.generated == 1 else 0
            steps.append(EngineStep(at, [(sequence, sequence.generated)], queried))
        self._fill(now)
        return steps

    def pause(self, *, new_only: bool) -> None:
        self._admits_none = True
        self._paused = not new_only

    def resume(self, now: float) -> None:
        self._admits_none = self._paused = False
        self._fill(now)

    def forget(self) -> None:
        """Does nothing, because this core has no caches."""

    def _fill(self, now: float) -> None:
        while self._waiting and len(self._running) < self._seats and not self._admits_none:
            sequence = self._waiting.popleft()
            sequence.scheduled = now
            self._running.add(sequence)
            wait_s = self._times.first_token_s + self._times.medium_s * len(sequence.job.media)
            self._expect(sequence, now + wait_s * self.slowness)
        self.next_at = self._due[0][0] if self._due and not self._paused else None

    def _expect(self, sequence: RunningSequence, at: float) -> None:
        self._number += 1
        heappush(self._due, (at, self._number, sequence))
