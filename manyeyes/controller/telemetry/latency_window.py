"""The last requests of one pool and how long they took. Pure: the time is passed in.

A request costs two binary searches and two short moves in sorted lists of at most 500: about 1 µs.
"""

from bisect import bisect_left, insort
from collections import deque
from math import ceil

SPAN_S = 300.0
MOST = 500
ENOUGH = 20
"""Fewer requests than this say nothing about a 95th percentile."""


class Recent:
    """Successful requests of the last five minutes, the last 500 at most."""

    def __init__(self) -> None:
        self._taken: deque[tuple[float, float, float | None]] = deque()
        self._totals: list[float] = []
        self._first_bytes: list[float] = []

    def add(self, now_s: float, total_s: float, first_byte_s: float | None) -> None:
        """One request that ended at `now_s`, on any clock that never goes back."""
        self._taken.append((now_s, total_s, first_byte_s))
        insort(self._totals, total_s)
        if first_byte_s is not None:
            insort(self._first_bytes, first_byte_s)
        if len(self._taken) > MOST:
            self._drop_oldest()

    def total_ms(self, share: float, now_s: float) -> int | None:
        """What this share of requests took at most, whole, in milliseconds; None while there are fewer than 20."""
        self._forget(now_s)
        return _quantile_ms(self._totals, share)

    def first_byte_ms(self, share: float, now_s: float) -> int | None:
        """The same until the first byte."""
        self._forget(now_s)
        return _quantile_ms(self._first_bytes, share)

    def total_s_since(self, share: float, since_s: float) -> float | None:
        """What this share of the requests that ended since then took at most, in seconds; None while there are fewer than 20."""
        totals = sorted(total_s for at_s, total_s, _ in self._taken if at_s >= since_s)
        if len(totals) < ENOUGH:
            return None
        return totals[max(0, ceil(share * len(totals)) - 1)]

    def _forget(self, now_s: float) -> None:
        while self._taken and self._taken[0][0] < now_s - SPAN_S:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, total_s, first_byte_s = self._taken.popleft()
        _remove(self._totals, total_s)
        if first_byte_s is not None:
            _remove(self._first_bytes, first_byte_s)


def _remove(ordered: list[float], value: float) -> None:
    del ordered[bisect_left(ordered, value)]


def _quantile_ms(ordered: list[float], share: float) -> int | None:
    """Nearest rank: a time that was really measured, never one between two."""
    if len(ordered) < ENOUGH:
        return None
    return round(1000 * ordered[max(0, ceil(share * len(ordered)) - 1)])
