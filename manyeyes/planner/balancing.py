"""Which engine a request goes to: what a gateway knows is how many requests each engine has, and where a conversation was.

An engine that has as many requests as it may is passed over by every policy, as nginx does with `max_conns`.
"""

from collections import OrderedDict
from collections.abc import Callable, Container
from random import Random

FEW = 64  # engines among which least_conn takes turns exactly as nginx does
LOOKS = 20  # after so many full engines a random choice becomes a search


class Balancer:
    """Counts requests per engine. `pick` chooses; None when every engine is full."""

    def __init__(self, engines: int, most: int, random: Random) -> None:
        self.counts = [0] * engines
        self.most = most
        self.random = random
        self._open = engines  # that are not full

    def pick(self, conversation: int, known: bool, without: Container[int] = ()) -> int | None:
        """`known`: the conversation had an answer before. `without`: engines that refused this request."""
        if not self._open:
            return None
        return self._choose(conversation, known, without)

    def began(self, engine: int) -> None:
        self.counts[engine] += 1
        if self.counts[engine] == self.most:
            self._open -= 1

    def ended(self, engine: int) -> None:
        if self.counts[engine] == self.most:
            self._open += 1
        self.counts[engine] -= 1

    def answered(self, conversation: int, engine: int, *, last: bool) -> None:
        """A turn of a conversation was answered; `last`: it has no more turns."""

    def _choose(self, conversation: int, known: bool, without: Container[int]) -> int | None:
        raise NotImplementedError

    def _usable(self, engine: int, without: Container[int]) -> bool:
        return self.counts[engine] < self.most and engine not in without

    def _next_after(self, engine: int, without: Container[int]) -> int | None:
        for step in range(len(self.counts)):
            if self._usable(other := (engine + step) % len(self.counts), without):
                return other
        return None


class RandomChoice(Balancer):
    def _choose(self, conversation: int, known: bool, without: Container[int]) -> int | None:
        engine = 0
        for _ in range(LOOKS):
            engine = int(self.random.random() * len(self.counts))
            if self._usable(engine, without):
                return engine
        return self._next_after(engine, without)


class RoundRobin(Balancer):
    _last = -1

    def _choose(self, conversation: int, known: bool, without: Container[int]) -> int | None:
        found = self._next_after(self._last + 1, without)
        if found is not None:
            self._last = found
        return found


class PowerOfTwo(Balancer):
    """Of two random engines the one with fewer requests (nginx: `random two least_conn`)."""

    def _choose(self, conversation: int, known: bool, without: Container[int]) -> int | None:
        engines, counts = len(self.counts), self.counts
        for _ in range(LOOKS):
            one, other = int(self.random.random() * engines), int(self.random.random() * engines)
            best = one if counts[one] <= counts[other] else other
            if self._usable(best, without):
                return best
        return self._next_after(best, without)


class LeastConn(Balancer):
    """The one with the fewest requests; of several, in turn.

    Up to FEW engines turns are nginx's own (ngx_http_upstream_least_conn_module: smooth weighted round robin among those that
    have equally many): that may choose the one that has just got another request, which costs a few first tokens some time.
    Among more engines it is the one that has had so many for longest, so that a choice costs the same among ten thousand as
    among ten: engines stand in one line for each number of requests.
    """

    def __init__(self, engines: int, most: int, random: Random) -> None:
        super().__init__(engines, most, random)
        self._lines: list[OrderedDict[int, None]] = [OrderedDict.fromkeys(range(engines))]
        self._least = 0
        self._turns = [0] * engines if engines <= FEW else None

    def began(self, engine: int) -> None:
        count = self.counts[engine]
        del self._lines[count][engine]
        if count + 1 == len(self._lines):
            self._lines.append(OrderedDict())
        self._lines[count + 1][engine] = None
        super().began(engine)

    def ended(self, engine: int) -> None:
        count = self.counts[engine]
        del self._lines[count][engine]
        self._lines[count - 1][engine] = None
        self._least = min(self._least, count - 1)
        super().ended(engine)

    def _choose(self, conversation: int, known: bool, without: Container[int]) -> int | None:
        while not self._lines[self._least]:
            self._least += 1
        for line in self._lines[self._least : self.most]:
            usable = (engine for engine in line if engine not in without)
            found = next(usable, None) if self._turns is None else self._in_turn(sorted(usable), self._turns)
            if found is not None:
                return found
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
    """A later turn goes where the one before was answered, unless that engine is full: this project's gateway."""

    def __init__(self, engines: int, most: int, random: Random) -> None:
        super().__init__(engines, most, random)
        self._homes: dict[int, int] = {}

    def answered(self, conversation: int, engine: int, *, last: bool) -> None:
        if last:
            self._homes.pop(conversation, None)  # nobody asks for it again; nginx keeps it for conversation_timeout_s
        else:
            self._homes[conversation] = engine

    def _choose(self, conversation: int, known: bool, without: Container[int]) -> int | None:
        if known:
            home = self._homes.get(conversation)
            if home is not None and self._usable(home, without):
                return home
        return super()._choose(conversation, known, without)


POLICIES: dict[str, Callable[[int, int, Random], Balancer]] = {
    "random": RandomChoice,
    "round_robin": RoundRobin,
    "power_of_two": PowerOfTwo,
    "least_conn": LeastConn,
    "sticky": Sticky,
}
"""By the name that the command line takes. `sticky`: least_conn and stickiness, as in this project's gateway."""
