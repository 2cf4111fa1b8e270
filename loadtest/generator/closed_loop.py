"""Closed loop: each Locust user is one person, who asks, waits for the answer, thinks, and asks again."""

import itertools

import gevent
from locust import User, task
from locust.runners import Runner, WorkerRunner

from loadtest.generator.sample_reporter import Told
from loadtest.run_spec import Order
from loadtest.sample import Sample
from loadtest.shapes.stage import length_s
from loadtest.users import Mix
from loadtest.virtual_user import Person

SPREAD_S = 3.0


def numbers(runner: Runner | None, processes: int) -> tuple[int, int]:
    """(first number, step) of this process's users: with P processes each takes every P-th."""
    return (runner.worker_index % processes, processes) if isinstance(runner, WorkerRunner) else (0, 1)


def people(order: Order, mix: Mix, told: Told) -> type[User]:
    asked = order.asked()
    order_of_coming = itertools.count()

    class Somebody(User):
        def on_start(self) -> None:
            first, step = numbers(self.environment.runner, order.processes)
            number = first + step * next(order_of_coming)
            self.scenario = mix.of(number)
            self.had = 0
            self.person = Person(number, asked, self.tell, gevent.sleep)
            # Not all at once: who starts together is answered together, and asks again together.
            spread_s = min(SPREAD_S * order.slowdown, length_s(order.stages) / 10 if order.stages else SPREAD_S)
            gevent.sleep(self.person.pauses.uniform(0, spread_s))

        def tell(self, sample: Sample) -> None:
            told.sample(sample)
            if self._state == "stopping":  # Locust ends a user after its task, and a chat of six turns is one task
                raise gevent.GreenletExit

        def on_stop(self) -> None:
            self.person.connection.close()

        @task
        def converse(self) -> None:
            conversation = self.scenario.conversation(order.seed, self.person.number, self.had)
            self.had += 1
            told.under_way += 1
            try:
                self.person.live(self.scenario, conversation)
            finally:
                told.under_way -= 1

    return Somebody
