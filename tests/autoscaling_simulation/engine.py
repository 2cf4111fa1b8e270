"""A GPU that answers many requests at once: each takes its share of the GPU, as in the emulator's profile, without its tokens.

One request costs the GPU some time for itself (its picture and prompt), and a part of every iteration of its decoding. With n
requests in the batch an iteration takes iteration_ms + n x (decode_us + context), and each of them moves by one token; prefill of
others stands in between. So all requests in a batch progress at the same speed, which depends on n alone, and one clock per engine
that runs at this speed tells when each of them is done: two heap operations a request.
"""

import heapq
from collections import deque
from dataclasses import dataclass, field

from manyeyes.simulator.profile import TimingProfile


@dataclass(frozen=True)
class Work:
    """What an average request is."""

    picture_megapixels: float = 1.0
    prompt_tokens: int = 250
    answer_tokens: int = 200

    def alone_s(self, profile: TimingProfile) -> float:
        """GPU time of its picture and prompt."""
        vision_tokens = self.picture_megapixels * 1e6 / 1024
        return (
            profile.encode_item_ms / 1e3
            + vision_tokens * profile.encode_us / 1e6
            + (self.prompt_tokens + vision_tokens) * profile.prefill_us / 1e6
        )

    def batch_s(self, profile: TimingProfile, running: int) -> float:
        """From a request's start to its end, while `running` requests are always in the batch."""
        vision_tokens = self.picture_megapixels * 1e6 / 1024
        context = self.prompt_tokens + vision_tokens + self.answer_tokens / 2
        token_s = profile.decode_us / 1e6 + context * profile.context_ns / 1e9
        return running * self.alone_s(profile) + self.answer_tokens * (profile.iteration_ms / 1e3 + running * token_s)


AVERAGE = Work()


@dataclass
class SimulatedEngine:
    """Requests in a batch of at most `most_running`, the others in a queue. Time is passed in."""

    name: str
    batch_s: list[float]
    """By the number that run: how long an average request takes."""
    in_flight: int = 0
    _clock: float = 0.0
    """Average requests that a request has completed since the beginning; each arrival gets an end on it."""
    _at_s: float = 0.0
    _running: list[tuple[float, float]] = field(default_factory=list)
    """(end on the engine's clock, arrival), a heap."""
    _waiting: deque[tuple[float, float]] = field(default_factory=deque)
    """(size, arrival)."""

    def take(self, now_s: float, size: float) -> None:
        """A request of `size` average requests."""
        self._advance(now_s)
        self.in_flight += 1
        if len(self._running) < len(self.batch_s) - 1:
            heapq.heappush(self._running, (self._clock + size, now_s))
        else:
            self._waiting.append((size, now_s))

    def next_end_s(self) -> float:
        """When the next request ends if none comes; infinite while there is none."""
        if not self._running:
            return float("inf")
        return self._at_s + (self._running[0][0] - self._clock) * self.batch_s[len(self._running)]

    def end_one(self, now_s: float) -> float:
        """The request that ends now. Returns when it came."""
        self._advance(now_s)
        self.in_flight -= 1
        end, arrival = heapq.heappop(self._running)
        self._clock = max(self._clock, end)
        if self._waiting:
            size, arrived = self._waiting.popleft()
            heapq.heappush(self._running, (self._clock + size, arrived))
        return arrival

    def _advance(self, now_s: float) -> None:
        if self._running:
            self._clock += (now_s - self._at_s) / self.batch_s[len(self._running)]
        self._at_s = now_s
