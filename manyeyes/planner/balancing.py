"""Balancing policies. The gateway knows how many requests each engine has, and which engine served a conversation.

Every policy skips engines that have the maximum number of requests, as nginx does with `max_conns`.
"""

from collections import OrderedDict
from collections.abc import Callable, Container
from random import Random

MAX_ENGINES_IN_TURN = 64  # up to this number of engines, least_conn takes turns exactly as nginx does
RANDOM_ATTEMPTS = 20  # after this number of full engines, a random choice becomes a search


class Balancer:
    """Counts requests per engine. `pick` chooses an engine; None if every engine is full."""

    def __init__(self, engines: int, max_requests: int, random: Random) -> None:
        self.counts = [0] * engines
        self.max_requests = max_requests
        self.random = random
        self._open = engines  # number of engines that are not full

    def pick(self, conversation: int, known: bool, excluded: Container[int] = ()) -> int | None:
        """`known`: whether the conversation had an answer before. `excluded`: engines that refused this request."""
        if not self._open:
            return None
        return self._choose(conversation, known, excluded)

    def began(self, engine: int) -> None:
        self.counts[engine] += 1
        if self.counts[engine] == self.max_requests:
            self._open -= 1

    def ended(self, engine: int) -> None:
        if self.counts[engine] == self.max_requests:
            self._open += 1
        self.counts[engine] -= 1

    def answered(self, conversation: int, engine: int, *, last: bool) -> None:
        """Called after an answered turn of a conversation. `last`: it has no more turns."""

    def _choose(self, conversation: int, known: bool, excluded: Container[int]) -> int | None:
        raise NotImplementedError

    def _usable(self, engine: int, excluded: Container[int]) -> bool:
        return self.counts[engine] < self.max_requests and engine not in excluded

    def _next_after(self, engine: int, excluded: Container[int]) -> int | None:
        for step in range(len(self.counts)):
            if self._usable(candidate := (engine + step) % len(self.counts), excluded):
                return candidate
        return None


class RandomChoice(Balancer):
    def _choose(self, conversation: int, known: bool, excluded: Container[int]) -> int | None:
        engine = 0
        for _ in range(RANDOM_ATTEMPTS):
            engine = int(self.random.random() * len(self.counts))
            if self._usable(engine, excluded):
                return engine
        return self._next_after(engine, excluded)


class RoundRobin(Balancer):
    _last = -1

    def _choose(self, conversation: int, known: bool, excluded: Container[int]) -> int | None:
        engine = self._next_after(self._last + 1, excluded)
        if engine is not None:
            self._last = engine
        return engine


class PowerOfTwo(Balancer):
    """Picks two random engines and uses the engine with fewer requests (nginx: `random two least_conn`)."""

    def _choose(self, conversation: int, known: bool, excluded: Container[int]) -> int | None:
        engines, counts = len(self.counts), self.counts
        for _ in range(RANDOM_ATTEMPTS):
            first, second = int(self.random.random() * engines), int(self.random.random() * engines)
            best = first if counts[first] <= counts[second] else second
            if self._usable(best, excluded):
                return best
        return self._next_after(best, excluded)


class LeastConn(Balancer):
    """Uses the engine with the fewest requests; equally busy engines take turns.

    Up to MAX_ENGINES_IN_TURN engines take turns as in nginx (ngx_http_upstream_least_conn_module: smooth weighted round robin among engines
    with equally many requests). That may choose an engine that has just received another request, which delays a few first
    tokens. With more engines, the engine that has had its number of requests for longest is used. Engines are queued by
    number of requests, so that a choice among ten thousand engines costs the same as among ten.
    """

    def __init__(self, engines: int, max_requests: int, random: Random) -> None:
        super().__init__(engines, max_requests, random)
        self._queues: list[OrderedDict[int, None]] = [OrderedDict.fromkeys(range(engines))]
        self._least = 0
        self._turns = [0] * engines if engines <= MAX_ENGINES_IN_TURN else None

    def began(self, engine: int) -> None:
        count = self.counts[engine]
        del self._queues[count][engine]
        if count + 1 == len(self._queues):
            self._queues.append(OrderedDict())
        self._queues[count + 1][engine] = None
        super().began(engine)

    def ended(self, engine: int) -> None:
        count = self.counts[engine]
        del self._queues[count][engine]
        self._queues[count - 1][engine] = None
        self._least = min(self._least, count - 1)
        super().ended(engine)

    def _choose(self, conversation: int, known: bool, excluded: Container[int]) -> int | None:
        while not self._queues[self._least]:
            self._least += 1
        for line in self._queues[self._least : self.max_requests]:
            usable = (engine for engine in line if engine not in excluded)
            engine = next(usable, None) if self._turns is None else self._in_turn(sorted(usable), self._turns)
            if engine is not None:
                return engine
        return None

    @staticmethod
    def _in_turn(engines: list[int], turns: list[int]) -> int | None:
        if len(engines) < 2:
            return engines[0] if engines else None
        best = engines[0]
        for engine in engines:
            turns[engine] += 1
            if turns[engine] > turns[best]:
                best = engine
        turns[best] -= len(engines)
        return best


class Sticky(LeastConn):
    """Session affinity, as in this project's gateway: a later turn goes to the engine of the turn before, unless it is full."""

    def __init__(self, engines: int, max_requests: int, random: Random) -> None:
        super().__init__(engines, max_requests, random)
        self._last_engines: dict[int, int] = {}

    def answered(self, conversation: int, engine: int, *, last: bool) -> None:
        if last:
            self._last_engines.pop(
                conversation, None
            )  # no later turn needs it; nginx stores it for conversation_timeout_s
        else:
            self._last_engines[conversation] = engine

    def _choose(self, conversation: int, known: bool, excluded: Container[int]) -> int | None:
        if known:
            home = self._last_engines.get(conversation)
            if home is not None and self._usable(home, excluded):
                return home
        return super()._choose(conversation, known, excluded)


POLICIES: dict[str, Callable[[int, int, Random], Balancer]] = {
    "random": RandomChoice,
    "round_robin": RoundRobin,
    "power_of_two": PowerOfTwo,
    "least_conn": LeastConn,
    "sticky": Sticky,
}
"""By name on the command line. `sticky`: session affinity and least_conn, as in this project's gateway."""
