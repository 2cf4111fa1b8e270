"""The Locust users of both loops.

Closed: each Locust user is one person, who asks, waits for the answer, thinks, and asks again. Open: people arrive whether or
not earlier ones were answered; each has one conversation, and leaves.
"""

import itertools
import time
from collections import deque
from collections.abc import Iterable

import gevent
from gevent.event import Event
from locust import User, task
from locust.runners import Runner, WorkerRunner

from loadtest.generator.results import SampleReporter
from loadtest.run_spec import RunSpec
from loadtest.sample import Sample
from loadtest.shapes import length_s
from loadtest.users import Mix
from loadtest.virtual_user import VirtualUser

START_SPREAD_S = 3.0


def user_numbers(runner: Runner | None, processes: int) -> tuple[int, int]:
    """(first number, step) of this process's users: with P processes each takes every P-th."""
    return (runner.worker_index % processes, processes) if isinstance(runner, WorkerRunner) else (0, 1)


def closed_loop_user(order: RunSpec, mix: Mix, reporter: SampleReporter) -> type[User]:
    settings = order.request_settings()
    order_of_coming = itertools.count()

    class Somebody(User):
        def on_start(self) -> None:
            first, step = user_numbers(self.environment.runner, order.processes)
            number = first + step * next(order_of_coming)
            self.scenario = mix.of(number)
            self.conversations = 0
            self.virtual_user = VirtualUser(number, settings, self.report_sample, gevent.sleep)
            # Not all at once: who starts together is answered together, and asks again together.
            spread_s = min(
                START_SPREAD_S * order.slowdown, length_s(order.stages) / 10 if order.stages else START_SPREAD_S
            )
            gevent.sleep(self.virtual_user.pauses.uniform(0, spread_s))

        def report_sample(self, sample: Sample) -> None:
            reporter.sample(sample)
            if self._state == "stopping":  # Locust ends a user after its task, and a chat of six turns is one task
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

    return Somebody


POLL_S = 0.5
Arrival = tuple[float, int]  # seconds since 1970, and the number of the one who arrives


class ArrivalQueue:
    """Who arrives when in this process, as the master said; of all, each process takes its part."""

    def __init__(self) -> None:
        self._queue: deque[Arrival] = deque()
        self._changed = Event()

    def add(self, dues: Iterable[Arrival], forget: bool) -> None:
        """`forget`: those of earlier that are still to come do not come."""
        if forget:
            self._queue.clear()
        self._queue.extend(dues)
        self._changed.set()

    def next(self, most_s: float) -> Arrival | None:
        """Waits until somebody is due, but no longer than `most_s`."""
        self._changed.clear()
        wait_s = self._queue[0][0] - time.time() if self._queue else most_s
        if wait_s > 0:
            self._changed.wait(min(wait_s, most_s))
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
        """One per process."""

        @task
        def arrive(self) -> None:
            first, step = user_numbers(self.environment.runner, order.processes)
            # At the end those who are there still get their answers; Locust waits for this task for so long as it may.
            while self._state != "stopping" or reporter.under_way:
                due = dues.next(POLL_S)
                if due and due[1] % step == first:
                    gevent.spawn(visit, due[1], due[0])

    return Arrivals
