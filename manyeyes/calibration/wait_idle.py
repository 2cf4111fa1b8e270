"""On a machine that others use too: waits until they leave it alone for a moment."""

import time

from loadtest.host_info import measure_cpu_share

LOOK_S = 2.0
PATIENCE_S = 600.0


def wait_until_quiet(below: float, patience_s: float = PATIENCE_S) -> float:
    """Until less than the share `below` of all cores was used for LOOK_S, or patience ends. Says what was used last."""
    until = time.monotonic() + patience_s
    while (used := measure_cpu_share(LOOK_S)) >= below and time.monotonic() < until:
        pass
    return used
