"""Open loop: people arrive whether or not earlier ones were answered; each has one conversation, and leaves."""

import time
from collections import deque
from collections.abc import Iterable

import gevent
from gevent.event import Event
from locust import User, task

from loadtest.generator.closed_loop import numbers
from loadtest.generator.sample_reporter import Told
from loadtest.run_spec import Order
from loadtest.users import Mix
from loadtest.virtual_user import Person

LOOK_S = 0.5
Due = tuple[float, int]  # seconds since 1970, and the number of the one who arrives


class Dues:
    """Who arrives when in this process, as the master said; of all, each process takes its part."""

    def __init__(self) -> None:
        self._queue: deque[Due] = deque()
        self._changed = Event()

    def add(self, dues: Iterable[Due], forget: bool) -> None:
        """`forget`: those of earlier that are still to come do not come."""
        if forget:
            self._queue.clear()
        self._queue.extend(dues)
        self._changed.set()

    def next(self, most_s: float) -> Due | None:
        """Waits until somebody is due, but no longer than `most_s`."""
        self._changed.clear()
        wait_s = self._queue[0][0] - time.time() if self._queue else most_s
        if wait_s > 0:
            self._changed.wait(min(wait_s, most_s))
        return self._queue.popleft() if self._queue and self._queue[0][0] <= time.time() else None


def arrivals(order: Order, mix: Mix, told: Told, dues: Dues) -> type[User]:
    asked = order.asked()
    free: list[Person] = []

    def visit(number: int, due_s: float) -> None:
        scenario = mix.of(number)
        person = free.pop() if free else Person(number, asked, told.sample, gevent.sleep)
        person.number = number
        told.under_way += 1
        try:
            person.live(scenario, scenario.conversation(order.seed, number, 0), due_s)
        finally:
            told.under_way -= 1
            free.append(person)

    class Arrivals(User):
        """One per process."""

        @task
        def arrive(self) -> None:
            first, step = numbers(self.environment.runner, order.processes)
            # At the end those who are there still get their answers; Locust waits for this task for so long as it may.
            while self._state != "stopping" or told.under_way:
                due = dues.next(LOOK_S)
                if due and due[1] % step == first:
                    gevent.spawn(visit, due[1], due[0])

    return Arrivals
