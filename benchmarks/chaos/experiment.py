"""Injects faults into a running cluster under load, waits for recovery, and measures before, during and after each fault."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chaos.faults import Fault, FaultPart
from benchmarks.chaos.load import LoadUsers, RetryingClient
from benchmarks.chaos.report import FaultResult, FaultTimes, fault_result, log_lines_by_id
from loadtest.gateway_client import GatewayClient
from loadtest.http_client import parse_target as address_of
from loadtest.virtual_user import RequestSettings
from manyeyes.cli import gateway_client as own_gateway
from manyeyes.cli import host_info, secrets, started_services
from manyeyes.cli.process import CommandFailed, run
from manyeyes.cli.terminal import print_error
from manyeyes.config.cluster import Cluster

DOCKER_S = 60.0


@dataclass(frozen=True)
class ContainerState:
    """State of a container. `started_at` changes with each restart."""

    running: bool
    paused: bool
    healthy: bool
    started_at: str


class ClusterContainers:
    """The containers of a Compose project. Every call runs one or two Docker commands."""

    def __init__(self, project: str) -> None:
        self.project = project

    def parts(self) -> list[FaultPart]:
        """Returns the running services; engines with their pool."""
        return sorted(
            (
                FaultPart(labels["com.docker.compose.service"], labels.get("manyeyes.pool", ""))
                for labels in (
                    container["Config"]["Labels"] for container in self._all() if container["State"]["Running"]
                )
            ),
            key=lambda part: part.service,
        )

    def flavours(self) -> set[str]:
        return {container["Config"]["Labels"].get("manyeyes.flavour", "") for container in self._all()} - {""}

    def states(self) -> dict[str, ContainerState]:
        """Returns the states by service; empty while Docker does not answer."""
        try:
            return {
                container["Config"]["Labels"]["com.docker.compose.service"]: _state(container)
                for container in self._all()
            }
        except (CommandFailed, TimeoutError):
            return {}

    def name(self, service: str) -> str:
        return f"{self.project}-{service}-1"

    def kill(self, service: str) -> None:
        """Sends SIGKILL to the container's main process. After `docker kill` Docker would not restart it."""
        pid = int(self._docker("inspect", "--format", "{{.State.Pid}}", self.name(service)))
        try:
            os.kill(pid, signal.SIGKILL)
        except PermissionError:
            # A member of the group docker may not send the signal, but a container that sees the host's processes can.
            image = self._docker("inspect", "--format", "{{.Config.Image}}", self.name("gateway")).strip()
            own = ["--rm", "--pid=host", "--network=none", "--user=0:0", "--entrypoint=/bin/sh"]
            self._docker("run", *own, image, "-c", f"kill -9 {pid}")

    def pause(self, service: str) -> None:
        self._docker("pause", self.name(service))

    def stop(self, service: str) -> None:
        self._docker("stop", self.name(service))

    def put_back(self, service: str) -> None:
        """Starts or unpauses a container; does nothing if it runs."""
        state = self.states().get(service)
        if state and state.paused:
            self._docker("unpause", self.name(service))
        elif state and not state.running:
            self._docker("start", self.name(service))

    def log_since(self, service: str, since_s: float) -> str:
        """Returns the log since then, across restarts."""
        return self._docker("logs", "--since", f"{since_s:.3f}", self.name(service))

    def inside(self, service: str, command: Sequence[str]) -> str:
        """Runs a command in the container. Raises CommandFailed or TimeoutError."""
        return self._docker("exec", self.name(service), *command)

    def _all(self) -> list[dict[str, dict[str, dict[str, str]]]]:
        label = f"label=com.docker.compose.project={self.project}"
        names = self._docker("ps", "--all", "--filter", label, "--format", "{{.Names}}").split()
        containers: list[dict[str, dict[str, dict[str, str]]]] = (
            json.loads(self._docker("inspect", *names)) if names else []
        )
        return containers

    def _docker(self, *arguments: str) -> str:
        return run(["docker", *arguments], timeout_s=DOCKER_S)


def _state(container: dict[str, dict[str, dict[str, str]]]) -> ContainerState:
    state = container["State"]
    health = state.get("Health") or {"Status": "healthy"}
    return ContainerState(
        running=bool(state["Running"]),
        paused=bool(state["Paused"]),
        healthy=health["Status"] == "healthy",
        started_at=str(state["StartedAt"]),
    )


class UnfitTarget(Exception):
    """The target is not suitable and nothing was done. The message says why and what to do next."""


@dataclass(frozen=True)
class ChaosTarget:
    """A cluster that faults can be injected into. `engines`: the eligible engines of the healthy cluster."""

    cluster: Cluster
    containers: ClusterContainers
    gateway: GatewayClient
    settings: RequestSettings
    engines: frozenset[str]
    emulated: bool


def find_target(config: Path, key: str, model: str, confirmed: bool) -> ChaosTarget:
    """Raises UnfitTarget, ConfigError, and GatewayUnusable if the gateway does not answer."""
    cluster = started_services.configuration(config)
    containers = ClusterContainers(cluster.name)
    if not host_info.docker().server or "gateway" not in {part.service for part in containers.parts()}:
        raise UnfitTarget(f"the cluster '{cluster.name}' does not run. Start it with `make up`.")
    emulated = containers.flavours() == {"emulated"}
    if not emulated and not confirmed:
        flavours = ", ".join(sorted(containers.flavours())) or "other"
        raise UnfitTarget(
            f"'{cluster.name}' has {flavours} engines, and the faults would affect its users. Confirm with CONFIRM=yes."
        )
    trusted = str(secrets.certificate_path(cluster) or "")
    gateway = GatewayClient(own_gateway.address(cluster), key, trusted)
    chosen = gateway.ready(model)
    if not (engines := frozenset(gateway.up())):
        raise UnfitTarget("no engine is up. See `make status`.")
    settings = RequestSettings(to=address_of(gateway.base), model=chosen, key=key, trusted=trusted)
    return ChaosTarget(cluster, containers, gateway, settings, engines, emulated)


def inject_fault(containers: ClusterContainers, fault: Fault, sleep: Callable[[float], None] = time.sleep) -> None:
    """Injects a fault. A pause or a stop is always undone before this returns; Docker restarts what was killed."""
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
    """On exit, also after Ctrl-C, every container that ran at the beginning runs again and is not paused."""
    ran = [service for service, state in containers.states().items() if state.running and not state.paused]
    try:
        yield
    finally:
        for service in ran:
            with contextlib.suppress(CommandFailed, TimeoutError):
                containers.put_back(service)


def run_restored(containers: ClusterContainers, work: Callable[[], None]) -> str:
    """Runs `work` and restores all containers. Returns why the run is partial; empty if it is complete. SIGTERM counts as Ctrl-C."""

    def as_ctrl_c(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, as_ctrl_c)
    try:
        with restored_containers(containers):
            work()
    except KeyboardInterrupt:
        return "interrupted by Ctrl-C"
    except (CommandFailed, TimeoutError) as error:
        return str(error)
    return ""


def exit_code(partial: str, bad: bool) -> int:
    """The exit code of both programs. Prints why a run is partial."""
    if partial:
        print_error(f"partial: {partial}; the cluster is restored")
        return 130 if partial.startswith("interrupted") else 1
    return 1 if bad else 0


BY_ITSELF_S = 90.0
"""Docker delays the restart of a container that exits soon after its start, up to a minute. After this time it is started."""
WHOLE_WITHIN_S = 600.0
"""Long enough for a real engine to load its model."""
SLOW_S = 20.0
"""If recovery takes longer, the report names what was waited for."""
POLL_INTERVAL_S = 0.2


@dataclass
class FaultExperiment:
    """`engines`: the eligible engines of the healthy cluster. `watch_s`: time to measure before a fault and after recovery."""

    containers: ClusterContainers
    gateway: GatewayClient
    crowd: LoadUsers
    retrying_client: RetryingClient
    engines: frozenset[str]
    watch_s: float = 10.0

    def measure(self, fault: Fault, on_progress: Callable[[str], None] = lambda note: None) -> FaultResult:
        """Measures for a while, injects the fault, waits for recovery, and measures for a while again."""
        began_s = time.time()
        on_progress("before")
        time.sleep(self.watch_s)
        before = {name: state.started_at for name, state in self.containers.states().items()}
        injected_s = time.time()
        on_progress("fault injected")
        inject_fault(self.containers, fault)
        on_progress("waiting for recovery")
        notes = self._wait_for_recovery(fault, before)
        recovered_s = time.time()
        on_progress("after")
        time.sleep(self.watch_s)
        times = FaultTimes(began_s, injected_s, recovered_s, time.time())
        try:
            log = log_lines_by_id(self.containers.log_since("gateway", began_s))
        except (CommandFailed, TimeoutError):
            log = None
            notes = [*notes, "the gateway's log could not be read, so requests answered twice are not known"]
        return fault_result(fault, times, list(self.crowd.samples), list(self.retrying_client.requests), log, notes)

    def _wait_for_recovery(self, fault: Fault, before: dict[str, str]) -> list[str]:
        notes: list[str] = []
        last: list[str] = []
        began = time.monotonic()
        while missing := self._missing(fault, before):
            last = missing
            waited = time.monotonic() - began
            if waited > WHOLE_WITHIN_S:
                return [*notes, f"not recovered after {waited:.0f} s: {', '.join(missing)}"]
            if waited > BY_ITSELF_S and not notes:
                for service in fault.services:
                    if not self._runs(service):
                        self.containers.put_back(service)
                        notes.append(
                            f"{service} did not restart within {BY_ITSELF_S:.0f} s and was started by this program"
                        )
            time.sleep(POLL_INTERVAL_S)
        elapsed_s = time.monotonic() - began
        return [*notes, f"last to recover, after {elapsed_s:.0f} s: {', '.join(last)}"] if elapsed_s > SLOW_S else notes

    def _runs(self, service: str) -> bool:
        state = self.containers.states().get(service)
        return bool(state and state.running)

    def _missing(self, fault: Fault, before: dict[str, str]) -> list[str]:
        """Returns the services and engines that have not recovered."""
        states = self.containers.states()
        parts = [name for name in before if not (name in states and states[name].running and not states[name].paused)]
        if fault.action != "pause":
            # Only for restarted services. For others, a health check that was late or fell into a pause stays failed for a minute.
            parts += [name for name in fault.services if name in states and not states[name].healthy]
        if fault.action == "kill":
            parts += [name for name in fault.services if name in states and states[name].started_at == before[name]]
        return sorted({*parts, *(self.engines - self.gateway.up())})
