"""When tokens come. Pure: seconds in, seconds or tokens out, counted from a request's admission."""

from math import floor

# A process that wakes at the very moment a token falls due must count it, whatever floats make of that moment.
TOLERANCE_S = 1e-6


def first_token_s(base_s: float, per_medium_s: float, media: int) -> float:
    """When the first token falls due."""
    return base_s + per_medium_s * media


def due_s(first_s: float, token_s: float, number: int) -> float:
    """When token `number` (from 1) falls due."""
    return first_s + token_s * (number - 1)


def tokens_due(elapsed_s: float, first_s: float, token_s: float, total: int) -> int:
    """How many of `total` tokens have fallen due."""
    since_first_s = elapsed_s - first_s + TOLERANCE_S
    if since_first_s < 0:
        return 0
    if token_s <= 0:
        return total
    return min(total, 1 + floor(since_first_s / token_s))
