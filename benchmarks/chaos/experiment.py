"""One fault after the other on a running cluster with its users on: before, injected and undone, whole again, after."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.chaos.fault_result import FaultResult, FaultTimes, fault_result, log_lines_by_id
from benchmarks.chaos.faults import Fault
from benchmarks.chaos.load import LoadUsers, RetryingClient
from benchmarks.chaos.target import ClusterContainers
from loadtest.gateway_client import GatewayClient
from manyeyes.cli.process import CommandFailed


def inject_fault(containers: ClusterContainers, fault: Fault, sleep: Callable[[float], None] = time.sleep) -> None:
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
def restored_containers(containers: ClusterContainers) -> Iterator[None]:
    """At the end everything that ran at the beginning runs, and is not paused; also after Ctrl-C."""
    ran = [service for service, state in containers.states().items() if state.running and not state.paused]
    try:
        yield
    finally:
        for service in ran:
            with contextlib.suppress(CommandFailed, TimeoutError):
                containers.put_back(service)


BY_ITSELF_S = 90.0
"""Docker waits longer before each start of a container that ends soon after its start, at most a minute; then it is helped."""
WHOLE_WITHIN_S = 600.0
"""A real engine loads its model anew."""
SLOW_S = 20.0
"""Longer than this, the report says what was waited for."""
LOOK_EVERY_S = 0.2


@dataclass
class FaultExperiment:
    """`engines`: who is up when all is well. `watch_s`: how long to look on before a strike, and after everything is back."""

    containers: ClusterContainers
    gateway: GatewayClient
    crowd: LoadUsers
    retrying_client: RetryingClient
    engines: frozenset[str]
    watch_s: float = 10.0

    def measure(self, fault: Fault, told: Callable[[str], None] = lambda note: None) -> FaultResult:
        """Waits a while, strikes, waits until everything is as before, looks on for a while."""
        began_s = time.time()
        told("before")
        time.sleep(self.watch_s)
        before = {name: state.started_at for name, state in self.containers.states().items()}
        struck_s = time.time()
        told("struck")
        inject_fault(self.containers, fault)
        told("waiting until all is as before")
        notes = self._whole_again(fault, before)
        whole_s = time.time()
        told("after")
        time.sleep(self.watch_s)
        times = FaultTimes(began_s, struck_s, whole_s, time.time())
        try:
            log = log_lines_by_id(self.containers.log_since("gateway", began_s))
        except (CommandFailed, TimeoutError):
            log = None
            notes = [*notes, "the gateway's log could not be read: nothing is known of what was answered twice"]
        return fault_result(fault, times, list(self.crowd.samples), list(self.retrying_client.requests), log, notes)

    def _whole_again(self, fault: Fault, before: dict[str, str]) -> list[str]:
        notes: list[str] = []
        last: list[str] = []
        began = time.monotonic()
        while missing := self._missing(fault, before):
            last = missing
            waited = time.monotonic() - began
            if waited > WHOLE_WITHIN_S:
                return [*notes, f"after {waited:.0f} s still not as before: {', '.join(missing)}"]
            if waited > BY_ITSELF_S and not notes:
                for service in fault.services:
                    if not self._runs(service):
                        self.containers.put_back(service)
                        notes.append(
                            f"{service} did not come back by itself within {BY_ITSELF_S:.0f} s and was started"
                        )
            time.sleep(LOOK_EVERY_S)
        took = time.monotonic() - began
        return [*notes, f"last to be as before, after {took:.0f} s: {', '.join(last)}"] if took > SLOW_S else notes

    def _runs(self, service: str) -> bool:
        state = self.containers.states().get(service)
        return bool(state and state.running)

    def _missing(self, fault: Fault, before: dict[str, str]) -> list[str]:
        """What is not as it was before the fault."""
        states = self.containers.states()
        parts = [name for name in before if not (name in states and states[name].running and not states[name].paused)]
        if fault.action != "pause":
            # Of what was started anew. Elsewhere a check that was late on a busy machine, or fell into a pause, counts for a minute.
            parts += [name for name in fault.services if name in states and not states[name].healthy]
        if fault.action == "kill":
            parts += [name for name in fault.services if name in states and states[name].started_at == before[name]]
        return sorted({*parts, *(self.engines - self.gateway.up())})
