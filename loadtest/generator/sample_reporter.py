"""What a process saw, on its way to where it is kept: straight there, or with a worker's reports to the master."""

import resource
import time
from dataclasses import astuple
from typing import Any

import gevent
from locust.env import Environment

from loadtest.sample import Sample

LAG_EVERY_S = 0.05


class Told:
    """Collects samples until they are taken, counts what is under way, and watches how the process itself keeps up."""

    def __init__(self) -> None:
        self.environment: Environment | None = None
        self.under_way = 0
        self._samples: list[Sample] = []
        self._cpu_s, self._at = _cpu_s(), time.monotonic()
        self._lag_s = 0.0

    def sample(self, sample: Sample) -> None:
        self._samples.append(sample)
        assert self.environment is not None
        # Locust's own table and charts: whole answers only. First tokens and tokens have files and figures of their own;
        # as further rows they would be counted as requests.
        self.environment.events.request.fire(
            request_type="POST",
            name=sample.scenario,
            response_time=1000 * sample.total_s,
            response_length=sample.tokens,
            exception=Failed(sample.failed) if sample.failed else None,
            context={},
        )

    def watch(self) -> None:
        """A greenlet: how late is a timer? That is how late tokens are stamped too."""
        while True:
            before = time.monotonic()
            gevent.sleep(LAG_EVERY_S)
            self._lag_s = max(self._lag_s, time.monotonic() - before - LAG_EVERY_S)

    def take(self) -> dict[str, Any]:
        """Everything since the last time. `cpu`: share of a core that this process used in between."""
        samples, self._samples = self._samples, []
        cpu_s, now, lag_s = _cpu_s(), time.monotonic(), self._lag_s
        share = (cpu_s - self._cpu_s) / max(1e-3, now - self._at)
        self._cpu_s, self._at, self._lag_s = cpu_s, now, 0.0
        return {
            "samples": [astuple(one) for one in samples],
            "cpu": share,
            "lag_s": lag_s,
            "under_way": self.under_way,
        }


class Failed(Exception):
    """Why an answer does not count; Locust groups by the text."""


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
