"""The vision encoder's outputs, kept until the room is needed: vllm/v1/core/encoder_cache_manager.py."""

from collections import OrderedDict

from manyeyes.simulator.request import Medium
from manyeyes.simulator.sequence import Sequence


class EncoderCache:
    """Which images and videos need not be encoded again. Its room counts vision tokens."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._free = capacity
        self._sizes: dict[int, int] = {}
        self._users: dict[int, set[Sequence]] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()  # nobody uses them; the longest unused first

    def use(self, medium: Medium, sequence: Sequence) -> bool:
        """Whether it is there; if so it stays until the sequence gives it back."""
        if medium.key not in self._sizes:
            return False
        self._idle.pop(medium.key, None)
        self._users.setdefault(medium.key, set()).add(sequence)
        return True

    def make_room(self, tokens: int) -> bool:
        """Whether so many vision tokens more can be kept. Drops what nobody uses, as far as needed."""
        if tokens > self._free + sum(self._sizes[key] for key in self._idle):
            return False
        while tokens > self._free:
            key, _ = self._idle.popitem(last=False)
            self._free += self._sizes.pop(key)
        return True

    def add(self, medium: Medium, sequence: Sequence) -> None:
        """Keep it for the sequence that has it encoded; `make_room` comes first."""
        self._sizes[medium.key] = medium.tokens
        self._free -= medium.tokens
        self._users[medium.key] = {sequence}

    def release(self, sequence: Sequence, key: int) -> None:
        """The sequence needs it no longer."""
        users = self._users.get(key)
        if users and sequence in users:
            users.discard(sequence)
            if not users:
                del self._users[key]
                self._idle[key] = None

    def forget(self) -> None:
        """Drop what nobody uses."""
        for key in self._idle:
            self._free += self._sizes.pop(key)
        self._idle.clear()
