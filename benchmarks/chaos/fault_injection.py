"""A fault done, held, and undone."""

import contextlib
import time
from collections.abc import Callable, Iterator

from benchmarks.chaos.containers import Containers
from benchmarks.chaos.faults import Fault
from manyeyes.cli.process import CommandFailed


def strike(containers: Containers, fault: Fault, sleep: Callable[[float], None] = time.sleep) -> None:
    """A pause or a stop is over when this returns, whatever happens; what was killed is Docker's to start again."""
    try:
        for service in fault.services:
            getattr(containers, fault.action)(service)
        if fault.hold_s:
            sleep(fault.hold_s)
    finally:
        if fault.action != "kill":
            for service in fault.services:
                containers.put_back(service)


@contextlib.contextmanager
def left_as_it_was(containers: Containers) -> Iterator[None]:
    """At the end everything that ran at the beginning runs, and is not paused; also after Ctrl-C."""
    ran = [service for service, state in containers.states().items() if state.running and not state.paused]
    try:
        yield
    finally:
        for service in ran:
            with contextlib.suppress(CommandFailed, TimeoutError):
                containers.put_back(service)
