"""A client that asks again, as OpenAI's own does: twice, after half a second and after a second. What is left of a fault then?"""

import threading
import time
from dataclasses import dataclass, field

import orjson

from loadtest.http_client import ConnectionBroken, StreamingConnection
from loadtest.virtual_user import PATH, RequestSettings

EVERY_S = 0.25
TIMEOUT_S = 30.0
RETRIES = 2
FIRST_PAUSE_S = 0.5


@dataclass(frozen=True)
class Tried:
    """One question. `tries` of which the last was answered, or not."""

    began_s: float
    ended_s: float
    tries: int
    answered: bool

    @property
    def failed_at_first(self) -> bool:
        return self.tries > 1 or not self.answered


@dataclass
class Patient:
    """Asks a short question four times a second, each over a connection of its own."""

    asked: RequestSettings
    tried: list[Tried] = field(default_factory=list)
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
                self.tried.append(Tried(began_s, time.time(), number, True))
                return
            if number <= RETRIES:
                time.sleep(FIRST_PAUSE_S * 2 ** (number - 1))
        self.tried.append(Tried(began_s, time.time(), RETRIES + 1, False))

    def _answered(self) -> bool:
        body = {"model": self.asked.model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
        connection = StreamingConnection(self.asked.to, TIMEOUT_S, self.asked.trusted)
        try:
            reply = connection.post(PATH, orjson.dumps(body), self.asked.headers())
            answer = b"".join(piece for _, piece in connection.pieces(reply))
            return reply.status == 200 and orjson.loads(answer)["choices"][0]["finish_reason"] in ("stop", "length")
        except (ConnectionBroken, OSError, ValueError, LookupError):
            return False
        finally:
            connection.close()
