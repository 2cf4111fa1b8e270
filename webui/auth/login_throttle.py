"""How long an address has to wait after wrong passwords: each one after the fifth doubles it, a quarter of an hour forgets them."""

from __future__ import annotations

FREE = 5
FIRST_S = 2.0
LONGEST_S = 120.0
FORGOTTEN_S = 900.0
MOST = 10_000
"""Addresses remembered; the one that failed longest ago is forgotten first."""


class Patience:
    def __init__(self) -> None:
        self._failed: dict[str, tuple[int, float]] = {}

    def wait_s(self, address: str, now_s: float) -> float:
        """0 or less: it may try."""
        count, last_s = self._failed.get(address, (0, 0.0))
        if now_s - last_s > FORGOTTEN_S:
            self._failed.pop(address, None)
            return 0.0
        if count < FREE:
            return 0.0
        return last_s + float(min(LONGEST_S, FIRST_S * 2.0 ** min(16, count - FREE))) - now_s

    def failed(self, address: str, now_s: float) -> None:
        count, _ = self._failed.pop(address, (0, 0.0))
        self._failed[address] = count + 1, now_s
        while len(self._failed) > MOST:
            self._failed.pop(next(iter(self._failed)))

    def forget(self, address: str) -> None:
        self._failed.pop(address, None)
