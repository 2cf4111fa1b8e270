"""When people arrive in an open loop. Pure."""

from random import Random


def arrivals_in(random: Random, rate: float, start_s: float, seconds: float) -> list[float]:
    """Sorted: a Poisson process of `rate` from `start_s` on, given that exactly rate x seconds people come.

    Given their number, arrivals of a Poisson process are independent and uniform. Fixing the number to what is expected
    keeps the bursts, and takes away that one probe happens to get 5 % more work than the next. A fraction of a person is
    drawn.
    """
    whole, part = divmod(rate * seconds, 1)
    count = int(whole) + (random.random() < part)
    return sorted(start_s + random.random() * seconds for _ in range(count))
