"""The load test's users in threads: they come and go when they are told, and every request of theirs is kept."""

import itertools
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from loadtest.sample import Sample
from loadtest.users import Mix
from loadtest.virtual_user import RequestSettings, VirtualUser

SEED = 20261121
END_S = 150.0


class _Over(Exception):
    """The user goes home."""


@dataclass
class Crowd:
    """`start` as many as wanted; `stop` waits for answers under way. `kept` gets a copy of each sample as it comes."""

    asked: RequestSettings
    mix: Mix
    samples: list[Sample] = field(default_factory=list)
    kept: Callable[[Sample], None] = lambda sample: None
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self, users: int) -> None:
        """A closed loop: each asks, reads, thinks, asks again."""
        self._spawn(users, self._live)

    def start_arrivals(self, a_second: float, at_once: int = 200) -> None:
        """An open loop: people arrive at random (Poisson), have one conversation and go; at most `at_once` of them."""
        turns = threading.Lock()
        gaps = random.Random(SEED)
        due = time.time()

        def next_due() -> float:
            nonlocal due
            with turns:
                due += gaps.expovariate(a_second)
                return due

        self._spawn(at_once, lambda person: self._arrive(person, next_due))

    def stop(self) -> None:
        self._over.set()
        deadline = time.monotonic() + END_S
        for thread in self._threads:
            thread.join(timeout=max(0.1, deadline - time.monotonic()))

    def _spawn(self, users: int, live: Callable[[VirtualUser], None]) -> None:
        for number in range(users):
            person = VirtualUser(number, self.asked, self._tell, self._sleep)
            thread = threading.Thread(target=self._until_over, args=(live, person), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _until_over(self, live: Callable[[VirtualUser], None], person: VirtualUser) -> None:
        try:
            live(person)
        except _Over:
            person.connection.close()

    def _live(self, person: VirtualUser) -> None:
        scenario = self.mix.of(person.number)
        self._sleep(person.pauses.uniform(0, 3))
        for had in itertools.count():
            person.live(scenario, scenario.conversation(SEED, person.number, had))

    def _arrive(self, person: VirtualUser, next_due: Callable[[], float]) -> None:
        scenario = self.mix.of(person.number)
        for had in itertools.count():
            due_s = next_due()
            self._sleep(due_s - time.time())
            person.live(scenario, scenario.conversation(SEED, person.number, had), due_s)

    def _tell(self, sample: Sample) -> None:
        self.samples.append(sample)
        self.kept(sample)
        if self._over.is_set():
            raise _Over

    def _sleep(self, seconds: float) -> None:
        if self._over.wait(max(0.0, seconds)):
            raise _Over
