"""How often an answer is drawn: as often as eyes like it, and less while the page is late, so that clicks are not."""

from __future__ import annotations

SHORTEST_S = 0.05  # 20 times a second; each drawing costs a message to the browser
LONGEST_S = 2.0
LATE_S = 0.03
"""Later than so much after its time, a drawing shows that the page has more to do than it can."""


def next_pause(pause_s: float, late_s: float) -> float:
    """The pause before the next drawing, from the last one and how late its end came."""
    wanted = pause_s * 1.6 if late_s > LATE_S else pause_s * 0.85
    return min(LONGEST_S, max(SHORTEST_S, wanted))
