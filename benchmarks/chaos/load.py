"""The load while faults happen: the load test's users in threads, somebody who opens the page, and a client that retries as
OpenAI's own does (twice, after half a second and after a second). Every request of theirs is recorded."""

import base64
import contextlib
import itertools
import random
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field

import orjson

from loadtest.gateway_client import GatewayClient
from loadtest.http_client import ConnectionBroken, StreamingConnection
from loadtest.statistics import Sample
from loadtest.users import Mix
from loadtest.virtual_user import PATH, RequestSettings, VirtualUser

SEED = 20261121
END_S = 150.0


class _LoadOver(Exception):
    """The user goes home."""


@dataclass
class LoadUsers:
    """`start` as many as wanted; `stop` waits for answers under way. `kept` gets a copy of each sample as it comes."""

    settings: RequestSettings
    mix: Mix
    samples: list[Sample] = field(default_factory=list)
    on_sample: Callable[[Sample], None] = lambda sample: None
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

        self._spawn(at_once, lambda user: self._arrive(user, next_due))

    def stop(self) -> None:
        self._over.set()
        deadline = time.monotonic() + END_S
        for thread in self._threads:
            thread.join(timeout=max(0.1, deadline - time.monotonic()))

    def _spawn(self, users: int, live: Callable[[VirtualUser], None]) -> None:
        for number in range(users):
            user = VirtualUser(number, self.settings, self._record, self._sleep)
            thread = threading.Thread(target=self._until_over, args=(live, user), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _until_over(self, live: Callable[[VirtualUser], None], user: VirtualUser) -> None:
        try:
            live(user)
        except _LoadOver:
            user.connection.close()

    def _live(self, user: VirtualUser) -> None:
        scenario = self.mix.of(user.number)
        self._sleep(user.pauses.uniform(0, 3))
        for had in itertools.count():
            user.converse(scenario, scenario.conversation(SEED, user.number, had))

    def _arrive(self, user: VirtualUser, next_due: Callable[[], float]) -> None:
        scenario = self.mix.of(user.number)
        for had in itertools.count():
            due_s = next_due()
            self._sleep(due_s - time.time())
            user.converse(scenario, scenario.conversation(SEED, user.number, had), due_s)

    def _record(self, sample: Sample) -> None:
        self.samples.append(sample)
        self.on_sample(sample)
        if self._over.is_set():
            raise _LoadOver

    def _sleep(self, seconds: float) -> None:
        if self._over.wait(max(0.0, seconds)):
            raise _LoadOver


VISIT_EVERY_S = 0.5
VISIT_TIMEOUT_S = 10.0


@dataclass
class PageVisitor:
    gateway: GatewayClient
    opened: int = 0
    failed: int = 0
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        if self._thread:
            self._thread.join(timeout=2 * VISIT_TIMEOUT_S)

    def _run(self) -> None:
        name = base64.b64encode(f"visitor:{self.gateway.key}".encode()).decode()
        headers = {"Authorization": f"Basic {name}"} if self.gateway.key else {}
        opener = self.gateway.opener()
        while not self._over.wait(VISIT_EVERY_S):
            self.failed += 1
            with contextlib.suppress(OSError):
                request = urllib.request.Request(f"{self.gateway.base}/", headers=headers)
                with opener.open(request, timeout=VISIT_TIMEOUT_S) as reply:
                    reply.read()
                self.opened += 1
                self.failed -= 1


EVERY_S = 0.25
TIMEOUT_S = 30.0
RETRIES = 2
FIRST_PAUSE_S = 0.5


@dataclass(frozen=True)
class RetriedRequest:
    """One question. `tries` of which the last was answered, or not."""

    began_s: float
    ended_s: float
    tries: int
    answered: bool

    @property
    def failed_at_first(self) -> bool:
        return self.tries > 1 or not self.answered


@dataclass
class RetryingClient:
    """Asks a short question four times a second, each over a connection of its own."""

    settings: RequestSettings
    requests: list[RetriedRequest] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        clock = threading.Thread(target=self._run, daemon=True)
        clock.start()
        self._threads.append(clock)

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(timeout=(RETRIES + 1) * TIMEOUT_S)

    def _run(self) -> None:
        while not self._over.wait(EVERY_S):
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            # Not one after the other: a question that waits must not hide what happens to the next.
            question = threading.Thread(target=self._question, daemon=True)
            question.start()
            self._threads.append(question)

    def _question(self) -> None:
        began_s = time.time()
        for number in range(1, RETRIES + 2):
            if self._answered():
                self.requests.append(RetriedRequest(began_s, time.time(), number, True))
                return
            if number <= RETRIES:
                time.sleep(FIRST_PAUSE_S * 2 ** (number - 1))
        self.requests.append(RetriedRequest(began_s, time.time(), RETRIES + 1, False))

    def _answered(self) -> bool:
        body = {"model": self.settings.model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
        connection = StreamingConnection(self.settings.to, TIMEOUT_S, self.settings.trusted)
        try:
            reply = connection.post(PATH, orjson.dumps(body), self.settings.headers())
            answer = b"".join(piece for _, piece in connection.pieces(reply))
            return reply.status == 200 and orjson.loads(answer)["choices"][0]["finish_reason"] in ("stop", "length")
        except (ConnectionBroken, OSError, ValueError, LookupError):
            return False
        finally:
            connection.close()
