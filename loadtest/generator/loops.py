"""Locust user classes and load shapes of the closed and the open loop.

Closed: each Locust user sends a request, waits for the answer, pauses, and sends the next request. Open: users arrive whether
or not earlier users were answered; each has one conversation and leaves.
"""

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random

import gevent
from gevent.event import Event
from locust import LoadTestShape, User, task
from locust.runners import Runner, WorkerRunner

from loadtest.generator.results import ResultWriter, SampleReporter
from loadtest.result_files import append_line
from loadtest.run_spec import LevelSearch, RunSpec, arrivals_in, length_s, level_at
from loadtest.statistics import Sample, Window, figures
from loadtest.users import Mix
from loadtest.virtual_user import VirtualUser

START_SPREAD_S = 3.0


def user_numbers(runner: Runner | None, processes: int) -> tuple[int, int]:
    """Returns (first number, step) of this process's users: with P processes, each process has every P-th user."""
    return (runner.worker_index % processes, processes) if isinstance(runner, WorkerRunner) else (0, 1)


def closed_loop_user(order: RunSpec, mix: Mix, reporter: SampleReporter) -> type[User]:
    settings = order.request_settings()
    user_index = itertools.count()

    class ChatUser(User):
        def on_start(self) -> None:
            first, step = user_numbers(self.environment.runner, order.processes)
            number = first + step * next(user_index)
            self.scenario = mix.of(number)
            self.conversations = 0
            self.virtual_user = VirtualUser(number, settings, self.report_sample, gevent.sleep)
            # Spread the starts: users that start at the same time would stay in step.
            spread_s = min(
                START_SPREAD_S * order.slowdown, length_s(order.stages) / 10 if order.stages else START_SPREAD_S
            )
            gevent.sleep(self.virtual_user.pauses.uniform(0, spread_s))

        def report_sample(self, sample: Sample) -> None:
            reporter.sample(sample)
            if self._state == "stopping":  # Locust stops a user after its task, and a chat of six turns is one task
                raise gevent.GreenletExit

        def on_stop(self) -> None:
            self.virtual_user.connection.close()

        @task
        def converse(self) -> None:
            conversation = self.scenario.conversation(order.seed, self.virtual_user.number, self.conversations)
            self.conversations += 1
            reporter.under_way += 1
            try:
                self.virtual_user.converse(self.scenario, conversation)
            finally:
                reporter.under_way -= 1

    return ChatUser


POLL_S = 0.5
Arrival = tuple[float, int]  # seconds since 1970, and the number of the user


class ArrivalQueue:
    """Arrivals that the master sent to this process, in order of time. Each process serves its part of them."""

    def __init__(self) -> None:
        self._queue: deque[Arrival] = deque()
        self._changed = Event()

    def add(self, dues: Iterable[Arrival], forget: bool) -> None:
        """Appends arrivals. `forget`: first discards the earlier arrivals that are still in the queue."""
        if forget:
            self._queue.clear()
        self._queue.extend(dues)
        self._changed.set()

    def next(self, timeout_s: float) -> Arrival | None:
        """Waits for the next arrival, at most `timeout_s`. Returns None if none is due by then."""
        self._changed.clear()
        wait_s = self._queue[0][0] - time.time() if self._queue else timeout_s
        if wait_s > 0:
            self._changed.wait(min(wait_s, timeout_s))
        return self._queue.popleft() if self._queue and self._queue[0][0] <= time.time() else None


def open_loop_user(order: RunSpec, mix: Mix, reporter: SampleReporter, dues: ArrivalQueue) -> type[User]:
    settings = order.request_settings()
    free: list[VirtualUser] = []

    def visit(number: int, due_s: float) -> None:
        scenario = mix.of(number)
        user = free.pop() if free else VirtualUser(number, settings, reporter.sample, gevent.sleep)
        user.number = number
        reporter.under_way += 1
        try:
            user.converse(scenario, scenario.conversation(order.seed, number, 0), due_s)
        finally:
            reporter.under_way -= 1
            free.append(user)

    class Arrivals(User):
        @task
        def arrive(self) -> None:
            first, step = user_numbers(self.environment.runner, order.processes)
            # At the end, conversations in progress still get their answers: Locust waits up to its stop timeout.
            while self._state != "stopping" or reporter.under_way:
                due = dues.next(POLL_S)
                if due and due[1] % step == first:
                    gevent.spawn(visit, due[1], due[0])

    return Arrivals


AHEAD_S = 0.3  # arrivals are sent to the processes this long before they are due
DRAIN_S = 30.0  # the longest wait for requests left over from a missed probe, on the engines' clock
PROBE_FIGURES = ("total_p50_s", "total_p95_s", "first_p95_s", "late_p99_s", "failed")
HOPELESS = 4  # a probe ends early at this multiple of the allowed misses

Send = Callable[[list[tuple[float, int]], bool], None]


def build_load_shape(order: RunSpec, writer: ResultWriter, send: Send) -> type[LoadTestShape]:
    """Returns the load shape class for Locust. `send` sends arrivals to all processes; a closed loop does not use it."""
    step = _StagedLoad(order, send) if order.search is None else _SearchingLoad(order, writer, send)

    class Course(LoadTestShape):
        def tick(self) -> tuple[int, float] | None:
            users = step.users(time.time())
            # Locust users are the simulated users in a closed loop, and one receiver of arrivals per process in an open loop.
            return None if users is None else (max(1, users), max(1.0, float(users)))

    return Course


class _ArrivalSender:
    def __init__(self, order: RunSpec, send: Send) -> None:
        self._order, self._send, self._count = order, send, 0

    def send(self, rate: float, start_s: float, seconds: float, forget: bool = False) -> int:
        """Sends the arrivals of a time span and returns their number."""
        random = Random(f"arrivals {self._order.seed} {self._count} {rate:.6f}")
        dues = arrivals_in(random, rate, start_s, seconds)
        self._send([(due, self._count + number) for number, due in enumerate(dues)], forget)
        self._count += len(dues)
        return len(dues)

    def cancel(self) -> None:
        self._send([], True)


class _StagedLoad:
    def __init__(self, order: RunSpec, send: Send) -> None:
        self._order, self._arrivals = order, _ArrivalSender(order, send)
        self._started_s: float | None = None
        self._sent_until_s = 0.0

    def users(self, now_s: float) -> int | None:
        if self._started_s is None:
            self._started_s = self._sent_until_s = now_s + AHEAD_S
            append_line(
                Path(self._order.folder) / "stages.jsonl",
                {"start_s": now_s, "end_s": now_s + length_s(self._order.stages)},
            )
        at_s = now_s - self._started_s
        here = level_at(self._order.stages, max(0.0, at_s))
        if here is None:
            self._arrivals.cancel()
            return None
        if self._order.loop == "closed":
            return max(1, round(here))
        until_s = now_s + 1.0 + 2 * AHEAD_S
        self._arrivals.send(here, self._sent_until_s, until_s - self._sent_until_s)
        self._sent_until_s = until_s
        return self._order.processes


class _SearchingLoad:
    """Probes one level after the other: settle, measure, record whether the objective was met.

    After a miss it waits until no request is in progress.
    """

    def __init__(self, order: RunSpec, writer: ResultWriter, send: Send) -> None:
        assert order.search is not None
        self._order, self._plan, self._writer = order, order.search, writer
        self._arrivals = _ArrivalSender(order, send)
        self._search = LevelSearch(order.search)
        self._level: float | None = None
        self._window = Window(0, 0)
        self._due = 0
        self._first_sample = 0
        self._rest_until_s: float | None = None

    def users(self, now_s: float) -> int | None:
        if self._rest_until_s is not None and not self._is_drained(now_s):
            return self._users()
        if self._level is not None:
            if not self._evaluate_probe(now_s):
                return self._users()
            if self._rest_until_s is not None:
                return self._users()
        if (next_level := self._search.level) is None:
            return None
        self._begin(next_level, now_s)
        return self._users()

    def _users(self) -> int:
        closed = self._order.loop == "closed"
        return max(1, round(self._level or 0)) if closed else self._order.processes

    def _begin(self, level: float, now_s: float) -> None:
        self._level = max(1.0, float(round(level))) if self._order.loop == "closed" else level
        start_s = now_s + AHEAD_S
        self._window = Window(start_s + self._plan.settle_s, start_s + self._plan.settle_s + self._plan.measure_s)
        self._first_sample = len(self._writer.samples)
        if self._order.loop == "open":
            window = self._window
            self._arrivals.send(self._level, start_s, window.start_s - start_s, forget=True)
            # A separate draw fixes the number of arrivals in the measured window, which decides the result of the probe.
            self._due = self._arrivals.send(self._level, window.start_s, window.seconds)

    def _evaluate_probe(self, now_s: float) -> bool:
        """Evaluates the probe if it is over and records the result in the search. Returns whether it is over."""
        assert self._level is not None
        order, window = self._order, self._window
        samples = self._writer.samples[self._first_sample :]
        begun = [sample for sample in samples if window.start_s <= sample.began_s < window.end_s]
        missed = [sample for sample in begun if not order.slo.is_met_by(sample, order.slowdown)]
        expected = self._due if order.loop == "open" else max(len(begun), 20)
        allowed = (1 - order.slo.share) * expected
        is_hopeless = len(missed) > HOPELESS * allowed + 5
        # A request still open at the end of the window has missed the objective once the objective's time has passed.
        wait_s = order.slo.total_s * order.slowdown if order.loop == "open" else 0.0
        if now_s < window.end_s + wait_s and not is_hopeless:
            return False
        if order.loop == "open":
            is_met = bool(expected) and not is_hopeless and expected - (len(begun) - len(missed)) <= allowed + 1e-9
        else:
            is_met = bool(begun) and len(missed) <= (1 - order.slo.share) * len(begun)
        seen = figures(begun, Window(0, now_s + 1e6), order.slo, order.slowdown)
        append_line(
            Path(order.folder) / "probes.jsonl",
            {
                "level": self._level,
                "held": is_met,
                "cut_short": is_hopeless,
                "start_s": window.start_s,
                "end_s": min(window.end_s, now_s),
                "asked": len(begun),
                "missed": len(missed),
                **{name: getattr(seen, name) for name in PROBE_FIGURES},
            },
        )
        self._search.record(self._level, is_met)
        if not is_met and order.loop == "open":
            self._arrivals.cancel()
            self._rest_until_s = now_s + DRAIN_S * order.slowdown
        self._level = None
        return True

    def _is_drained(self, now_s: float) -> bool:
        assert self._rest_until_s is not None
        if now_s < self._rest_until_s and any(self._writer.under_way.values()):
            return False
        self._rest_until_s = None
        return True
