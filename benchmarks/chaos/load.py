"""The load during faults: the load test's users in threads, a visitor of the web page, and a client that retries.

The client retries as OpenAI's does: twice, after half a second and after a second. Every request is recorded.
"""

import base64
import contextlib
import itertools
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import orjson

from loadtest.gateway_client import GatewayClient
from loadtest.host_info import Repeating
from loadtest.http_client import ConnectionBroken, StreamingConnection, fetch
from loadtest.statistics import Sample
from loadtest.users import Mix
from loadtest.virtual_user import PATH, RequestSettings, VirtualUser

SEED = 20261121
END_S = 150.0


class _LoadOver(Exception):
    """Stops a user's thread."""


@dataclass
class LoadUsers:
    """Users in threads. `stop` waits for requests in progress. `on_sample` is called with each sample."""

    settings: RequestSettings
    mix: Mix
    samples: list[Sample] = field(default_factory=list)
    on_sample: Callable[[Sample], None] = lambda sample: None
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self, users: int) -> None:
        """Starts a closed loop: each user sends a request, reads the answer, pauses, and sends the next request."""
        self._spawn(users, lambda: None)

    def start_arrivals(self, a_second: float, at_once: int = 200) -> None:
        """Starts an open loop: users arrive at random (Poisson) and have one conversation; at most `at_once` concurrently."""
        turns = threading.Lock()
        gaps = random.Random(SEED)
        due = time.time()

        def next_due() -> float:
            nonlocal due
            with turns:
                due += gaps.expovariate(a_second)
                return due

        self._spawn(at_once, next_due)

    def stop(self) -> None:
        self._over.set()
        deadline = time.monotonic() + END_S
        for thread in self._threads:
            thread.join(timeout=max(0.1, deadline - time.monotonic()))

    def _spawn(self, users: int, next_due: Callable[[], float | None]) -> None:
        for number in range(users):
            user = VirtualUser(number, self.settings, self._record, self._sleep)
            thread = threading.Thread(target=self._live, args=(user, next_due), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _live(self, user: VirtualUser, next_due: Callable[[], float | None]) -> None:
        """`next_due` returns the next user's arrival time, or None if the same user continues (closed loop)."""
        scenario = self.mix.of(user.number)
        try:
            for had in itertools.count():
                due_s = next_due()
                if due_s is not None:
                    self._sleep(due_s - time.time())
                elif not had:
                    self._sleep(user.pauses.uniform(0, 3))
                user.converse(scenario, scenario.conversation(SEED, user.number, had), due_s)
        except _LoadOver:
            user.connection.close()

    def _record(self, sample: Sample) -> None:
        self.samples.append(sample)
        self.on_sample(sample)
        if self._over.is_set():
            raise _LoadOver

    def _sleep(self, seconds: float) -> None:
        if self._over.wait(max(0.0, seconds)):
            raise _LoadOver


class PageVisitor(Repeating):
    """Opens the page twice a second."""

    every_s = 0.5
    stop_timeout_s = 20.0

    def __init__(self, gateway: GatewayClient) -> None:
        super().__init__()
        self.gateway = gateway
        self.opened = self.failed = 0

    def once(self) -> None:
        name = base64.b64encode(f"visitor:{self.gateway.key}".encode()).decode()
        headers = {"Authorization": f"Basic {name}"} if self.gateway.key else {}
        self.failed += 1
        with contextlib.suppress(OSError):
            fetch(f"{self.gateway.base}/", None, headers, trusted=self.gateway.trusted)
            self.opened += 1
            self.failed -= 1


TIMEOUT_S = 30.0
RETRIES = 2
FIRST_PAUSE_S = 0.5


@dataclass(frozen=True)
class RetriedRequest:
    """One request with its retries. `answered`: whether the last of the `tries` was answered."""

    began_s: float
    ended_s: float
    tries: int
    answered: bool

    @property
    def failed_at_first(self) -> bool:
        return self.tries > 1 or not self.answered


class RetryingClient(Repeating):
    """Sends a short request four times a second, each on a separate connection."""

    every_s = 0.25
    stop_timeout_s = (RETRIES + 1) * TIMEOUT_S

    def __init__(self, settings: RequestSettings) -> None:
        super().__init__()
        self.settings = settings
        self.requests: list[RetriedRequest] = []
        self._questions: list[threading.Thread] = []

    def stop(self) -> None:
        super().stop()
        for question in self._questions:
            question.join(timeout=self.stop_timeout_s)

    def once(self) -> None:
        self._questions = [question for question in self._questions if question.is_alive()]
        # Each request has a thread: a request that waits must not delay the next request.
        question = threading.Thread(target=self._question, daemon=True)
        question.start()
        self._questions.append(question)

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
