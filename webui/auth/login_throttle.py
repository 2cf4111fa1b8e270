"""Slows down password guessing without locking others out.

Attempts count for a name at an address: no other visitor waits for a guesser. A
browser that has logged in before has a separate count, so that a guesser at the same address (a shared proxy) does
not slow it down either.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

FREE_ATTEMPTS = 5
FIRST_DELAY_S = 2.0
LONGEST_DELAY_S = 120.0
FORGET_AFTER_S = 900.0
MAX_TRACKED = 10_000
"""Maximum number of tracked keys. The key with the oldest attempt is dropped first."""
MAX_CONCURRENT_ATTEMPTS = 8
"""Attempts of one address that wait for the check of their password, so that its queue stays short for others."""


class LoginThrottle:
    """Exponential back-off per key after five attempts without a success. It resets after 15 minutes."""

    def __init__(self) -> None:
        self._attempts: dict[str, tuple[int, float]] = {}
        self._checking: Counter[str] = Counter()

    def wait_s(self, key: str, now_s: float) -> float:
        """Returns the seconds until the next attempt is allowed; 0 or less: it is allowed."""
        count, last_s = self._attempts.get(key, (0, 0.0))
        if now_s - last_s > FORGET_AFTER_S:
            self._attempts.pop(key, None)
            return 0.0
        if count < FREE_ATTEMPTS:
            return 0.0
        return last_s + float(min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(16, count - FREE_ATTEMPTS))) - now_s

    def failed(self, key: str, now_s: float) -> None:
        """Counts an attempt. Call it before the password is checked, because many attempts may arrive together."""
        count, _ = self._attempts.pop(key, (0, 0.0))
        self._attempts[key] = count + 1, now_s
        while len(self._attempts) > MAX_TRACKED:
            self._attempts.pop(next(iter(self._attempts)))

    def forget(self, key: str) -> None:
        self._attempts.pop(key, None)

    def is_busy(self, address: str) -> bool:
        return self._checking[address] >= MAX_CONCURRENT_ATTEMPTS

    @contextmanager
    def checking(self, address: str) -> Iterator[None]:
        self._checking[address] += 1
        try:
            yield
        finally:
            self._checking[address] -= 1
            if self._checking[address] <= 0:
                del self._checking[address]
