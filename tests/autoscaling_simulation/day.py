"""A simulated day: people come as the hour has it, with noise and spikes from a seed, and scaling follows them.

Discrete events: an arrival, an end, a look every few seconds with the decision that the controller would make of it. The decisions
are the controller's own code (manyeyes/controller/autoscaling).

A GPU answers many requests at once, as in the emulator's profile, without its tokens. One request costs it some time for itself (its
picture and prompt), and a part of every iteration of its decoding. With n requests in the batch an iteration takes iteration_ms +
n x (decode_us + context), and each of them moves by one token; prefill of others stands in between. So all requests in a batch progress
at the same speed, which depends on n alone, and one clock per engine that runs at this speed tells when each of them is done: two heap
operations a request.
"""

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import cos, exp, pi
from operator import attrgetter
from random import Random

from manyeyes.config.scaling import Scaling
from manyeyes.controller.autoscaling.demand import PoolLoad
from manyeyes.controller.autoscaling.policy import PoolAutoscaler, ReplicaChange
from manyeyes.controller.autoscaling.reconcile import LifecycleStage, ScaledEngine, plan_moves
from manyeyes.simulator import profile
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


DAY_S = 86_400
MINUTE_S = 60
LOOK_S = 5.0
SETTLE_S = 3.0
MONDAY_S = 1_700_438_400.0  # 2023-11-20 00:00 UTC


@dataclass(frozen=True)
class Traffic:
    """Requests over a day. A working day: quiet at night, a hill from morning to evening, bunches and spikes."""

    night_per_s: float = 0.4
    peak_per_s: float = 9.0
    noise: float = 0.15
    """Standard deviation of the logarithm of a random factor that changes over about ten minutes."""
    spikes: int = 4
    spike_factor: float = 1.6
    """A spike comes within a minute and goes within about ten."""

    def rates(self, random: Random) -> list[float]:
        """Requests per second, for every ten seconds."""
        steps = DAY_S // 10
        spikes = [random.uniform(7 * 3600, 21 * 3600) for _ in range(self.spikes)]
        rates, drift = [], 0.0
        for step in range(steps):
            at = step * 10.0
            hour = at / 3600
            hill = max(0.0, 0.5 - 0.5 * cos(2 * pi * (hour - 5) / 18)) if 5 <= hour <= 23 else 0.0
            drift += -drift / 60 + random.gauss(0, self.noise * (2 / 60) ** 0.5)
            spike = max((_spike(at - start, self.spike_factor) for start in spikes), default=1.0)
            rates.append((self.night_per_s + (self.peak_per_s - self.night_per_s) * hill) * exp(drift) * spike)
        return rates


def _spike(since_s: float, factor: float) -> float:
    if since_s < 0:
        return 1.0
    return 1 + (factor - 1) * min(1.0, since_s / MINUTE_S) * exp(-max(0.0, since_s - 300) / 300)


@dataclass(frozen=True)
class Setting:
    """What the day is played on."""

    scaling: Scaling
    engines: int = 6
    slo_p95_s: float = 10.0
    """In every minute, 95 % of the requests that end are answered within this."""
    profile: str = "rtx4090-qwen3-vl-8b-fp8"
    batch: int = 48
    most_in_flight: int = 96
    """More than this an engine is not given; the gateway answers 429."""
    traffic: Traffic = Traffic()
    work: Work = AVERAGE


@dataclass
class Outcome:
    """What the day came to."""

    minutes: int
    """With any request."""
    minutes_held: int
    """In which 95 % were answered within the objective and none was refused."""
    engine_hours: float
    """Of engines that were started, those that start and those that drain included."""
    always_on_hours: float
    changes: tuple[ReplicaChange, ...]

    @property
    def held(self) -> float:
        return self.minutes_held / self.minutes

    @property
    def hours_share(self) -> float:
        return self.engine_hours / self.always_on_hours

    @property
    def most_changes_an_hour(self) -> int:
        """In any hour, wherever it begins."""
        times = [change.at_s for change in self.changes]
        return max((sum(begin <= at < begin + 3600 for at in times) for begin in times), default=0)

    def swings(self, within_s: float) -> int:
        """Times that engines were added, taken out and added again within this time."""
        signs = [(change.at_s, change.after > change.before) for change in self.changes]
        return sum(
            first and not second and third and third_at - first_at <= within_s
            for (first_at, first), (_, second), (third_at, third) in zip(signs, signs[1:], signs[2:], strict=False)
        )


def play(setting: Setting, seed: int) -> Outcome:
    """One day. The same seed gives the same day."""
    return _Day(setting, seed).play()


_BUSY = attrgetter("in_flight")


class _Day:
    def __init__(self, setting: Setting, seed: int) -> None:
        self.setting = setting
        self.random = Random(seed)
        times = profile.load_profile(setting.profile)
        batch_s = [setting.work.batch_s(times, running) for running in range(setting.batch + 1)]
        self.engines = {f"gpu-{number}": SimulatedEngine(f"gpu-{number}", batch_s) for number in range(setting.engines)}
        # All at first, as `make up` does: scaling then takes out what is not needed.
        self.stages = dict.fromkeys(self.engines, (LifecycleStage.SERVING, 0.0))
        self.serving = list(self.engines.values())
        self.scaler = PoolAutoscaler(setting.scaling, len(self.serving))
        self.recent: deque[tuple[float, float]] = deque()
        self.changes: list[ReplicaChange] = []
        self.engine_s = 0.0
        self.by_minute: list[list[float]] = [[] for _ in range(DAY_S // MINUTE_S + 30)]
        self.refused_in: set[int] = set()

    def play(self) -> Outcome:
        ends: list[tuple[float, str]] = []
        arrivals = self._arrivals()
        arrival = next(arrivals, float("inf"))
        look = LOOK_S
        due: dict[str, float] = {}
        while look < DAY_S:
            while ends and due.get(ends[0][1]) != ends[0][0]:
                heapq.heappop(ends)
            end_s = ends[0][0] if ends else float("inf")
            if arrival <= end_s and arrival <= look:
                if (engine := self._place(arrival)) is not None:
                    self._expect(engine, ends, due)
                arrival = next(arrivals, float("inf"))
            elif end_s <= look:
                engine = self.engines[heapq.heappop(ends)[1]]
                self._ended(end_s, end_s - engine.end_one(end_s))
                self._expect(engine, ends, due)
            else:
                self._look(look)
                look += LOOK_S
        return self._outcome()

    def _arrivals(self) -> Iterator[float]:
        rates = self.setting.traffic.rates(self.random)
        at, limit = 0.0, max(rates)
        while True:
            at += self.random.expovariate(limit)
            if at >= DAY_S:
                return
            if self.random.random() * limit <= rates[int(at / 10)]:
                yield at

    def _place(self, now_s: float) -> SimulatedEngine | None:
        """To the least busy one, as the gateway does; None when all are full."""
        engine = min(self.serving, key=_BUSY)
        if engine.in_flight >= self.setting.most_in_flight:
            self.refused_in.add(int(now_s / MINUTE_S))
            return None
        engine.take(now_s, self.random.uniform(0.5, 1.5))
        return engine

    @staticmethod
    def _expect(engine: SimulatedEngine, ends: list[tuple[float, str]], due: dict[str, float]) -> None:
        end_s = engine.next_end_s()
        if due.get(engine.name) != end_s:
            due[engine.name] = end_s
            if end_s < float("inf"):
                heapq.heappush(ends, (end_s, engine.name))

    def _ended(self, now_s: float, took_s: float) -> None:
        self.by_minute[int(now_s / MINUTE_S)].append(took_s)
        self.recent.append((now_s, took_s))

    def _look(self, now_s: float) -> None:
        scaling = self.setting.scaling
        for name, (stage, since_s) in self.stages.items():
            if stage is LifecycleStage.STARTING and now_s - since_s >= scaling.ready_s:
                self.stages[name] = (LifecycleStage.SERVING, now_s)
        self.engine_s += LOOK_S * sum(stage is not LifecycleStage.STOPPED for stage, _ in self.stages.values())
        while self.recent and now_s - self.recent[0][0] > MINUTE_S:
            self.recent.popleft()
        taken = sorted(took for _, took in self.recent)
        p95_s = taken[int(0.95 * (len(taken) - 1))] if len(taken) >= 20 else None
        serving = sum(stage is LifecycleStage.SERVING for stage, _ in self.stages.values())
        in_flight = sum(engine.in_flight for engine in self.engines.values())
        self.scaler.see(PoolLoad(MONDAY_S + now_s, serving, in_flight, None, p95_s))
        before = self.scaler.desired
        decision = self.scaler.decide(len(self.engines), MONDAY_S + now_s)
        if decision.desired != before:
            self.changes.append(ReplicaChange(now_s, before, decision.desired))
        seen = [
            ScaledEngine(name, stage, self.engines[name].in_flight, since_s)
            for name, (stage, since_s) in self.stages.items()
        ]
        todo = plan_moves(seen, decision.desired, now_s, scaling.scale_down.drain_s, SETTLE_S)
        for names, stage in (
            (todo.undrain, LifecycleStage.SERVING),
            (todo.start, LifecycleStage.STARTING),
            (todo.drain, LifecycleStage.DRAINING),
            (todo.rest, LifecycleStage.STOPPED),
        ):
            for name in names:
                self.stages[name] = (stage, now_s)
        self.serving = [
            engine for name, engine in self.engines.items() if self.stages[name][0] is LifecycleStage.SERVING
        ]

    def _outcome(self) -> Outcome:
        minutes = held = 0
        for number, taken in enumerate(self.by_minute[: DAY_S // MINUTE_S]):
            if not taken and number not in self.refused_in:
                continue
            minutes += 1
            p95_s = sorted(taken)[int(0.95 * (len(taken) - 1))] if taken else 0.0
            held += p95_s <= self.setting.slo_p95_s and number not in self.refused_in
        return Outcome(
            minutes=minutes,
            minutes_held=held,
            engine_hours=self.engine_s / 3600,
            always_on_hours=len(self.engines) * DAY_S / 3600,
            changes=tuple(self.changes),
        )
