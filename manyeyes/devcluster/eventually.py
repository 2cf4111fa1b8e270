"""Waits for a condition to become true, instead of sleeping."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(check: Callable[[], T], within_s: float, every_s: float = 0.1, what: str = "") -> T:
    """Calls `check` until it returns a truthy value, and returns that value.

    An AssertionError inside `check` counts as "not yet"; other exceptions are passed on.
    Raises AssertionError after `within_s` seconds, with `what` and the last result.
    """
    deadline = time.monotonic() + within_s
    while True:
        last: object
        try:
            result = check()
            if result:
                return result
            last = result
        except AssertionError as error:
            last = error
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what or 'the condition'}: not true within {within_s} s; last result: {last!r}")
        time.sleep(every_s)
