"""The running cluster that faults are for: its containers, what a fault does to one, and whether that may be done to it."""

import json
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chaos.faults import FaultPart
from loadtest.gateway_client import GatewayClient
from loadtest.http_client import parse_target as address_of
from loadtest.virtual_user import RequestSettings
from manyeyes.cli import gateway_client as own_gateway
from manyeyes.cli import host_info, secrets
from manyeyes.cli.process import CommandFailed, run
from manyeyes.config.cluster import Cluster
from manyeyes.config.loader import load

DOCKER_S = 60.0


@dataclass(frozen=True)
class ContainerState:
    """How a container is. `started_at` tells one run of it from the next."""

    running: bool
    paused: bool
    healthy: bool
    started_at: str


class ClusterContainers:
    """One Compose project. Every call is one or two of Docker's."""

    def __init__(self, project: str) -> None:
        self.project = project

    def parts(self) -> list[FaultPart]:
        """What runs at the moment, engines with their pools."""
        return sorted(
            (
                FaultPart(labels["com.docker.compose.service"], labels.get("manyeyes.pool", ""))
                for labels in (one["Config"]["Labels"] for one in self._all() if one["State"]["Running"])
            ),
            key=lambda part: part.service,
        )

    def flavours(self) -> set[str]:
        """Of the engines."""
        return {one["Config"]["Labels"].get("manyeyes.flavour", "") for one in self._all()} - {""}

    def states(self) -> dict[str, ContainerState]:
        """By service; none while Docker does not answer."""
        try:
            return {one["Config"]["Labels"]["com.docker.compose.service"]: _state(one) for one in self._all()}
        except (CommandFailed, TimeoutError):
            return {}

    def name(self, service: str) -> str:
        return f"{self.project}-{service}-1"

    def kill(self, service: str) -> None:
        """SIGKILL to the container's first process. `docker kill` would count as the operator's wish: no restart."""
        pid = int(self._docker("inspect", "--format", "{{.State.Pid}}", self.name(service)))
        try:
            os.kill(pid, signal.SIGKILL)
        except PermissionError:
            # A user of the group docker: by a container that sees the host's processes, in an image that is there.
            image = self._docker("inspect", "--format", "{{.Config.Image}}", self.name("gateway")).strip()
            own = ["--rm", "--pid=host", "--network=none", "--user=0:0", "--entrypoint=/bin/sh"]
            self._docker("run", *own, image, "-c", f"kill -9 {pid}")

    def pause(self, service: str) -> None:
        self._docker("pause", self.name(service))

    def stop(self, service: str) -> None:
        self._docker("stop", self.name(service))

    def put_back(self, service: str) -> None:
        """Running and not paused, whatever it was; nothing where it is so already."""
        state = self.states().get(service)
        if state and state.paused:
            self._docker("unpause", self.name(service))
        elif state and not state.running:
            self._docker("start", self.name(service))

    def log_since(self, service: str, since_s: float) -> str:
        """What it printed since then, over its restarts."""
        return self._docker("logs", "--since", f"{since_s:.3f}", self.name(service))

    def inside(self, service: str, command: Sequence[str]) -> str:
        """Raises CommandFailed, TimeoutError."""
        return self._docker("exec", self.name(service), *command)

    def _all(self) -> list[dict[str, dict[str, dict[str, str]]]]:
        label = f"label=com.docker.compose.project={self.project}"
        names = self._docker("ps", "--all", "--filter", label, "--format", "{{.Names}}").split()
        found: list[dict[str, dict[str, dict[str, str]]]] = json.loads(self._docker("inspect", *names)) if names else []
        return found

    def _docker(self, *arguments: str) -> str:
        return run(["docker", *arguments], timeout_s=DOCKER_S)


def _state(told: dict[str, dict[str, dict[str, str]]]) -> ContainerState:
    state = told["State"]
    health = state.get("Health") or {"Status": "healthy"}
    return ContainerState(
        running=bool(state["Running"]),
        paused=bool(state["Paused"]),
        healthy=health["Status"] == "healthy",
        started_at=str(state["StartedAt"]),
    )


class UnfitTarget(Exception):
    """Nothing was done; one sentence says why and what to do next."""


@dataclass(frozen=True)
class ChaosTarget:
    """`engines`: who is up when all is well."""

    cluster: Cluster
    containers: ClusterContainers
    gateway: GatewayClient
    settings: RequestSettings
    engines: frozenset[str]
    emulated: bool


def find_target(config: Path, key: str, model: str, confirmed: bool) -> ChaosTarget:
    """Raises Unfit, ConfigError, and Unusable where the gateway gives no answer."""
    cluster = load(config)
    containers = ClusterContainers(cluster.name)
    if not host_info.docker().server or "gateway" not in {part.service for part in containers.parts()}:
        raise UnfitTarget(f"the cluster '{cluster.name}' does not run: make up")
    emulated = containers.flavours() == {"emulated"}
    if not emulated and not confirmed:
        flavours = ", ".join(sorted(containers.flavours())) or "other"
        raise UnfitTarget(
            f"'{cluster.name}' has {flavours} engines, and its users would feel this: CONFIRM=yes if you mean it"
        )
    trusted = str(secrets.certificate_path(cluster) or "")
    gateway = GatewayClient(own_gateway.address(cluster), key, trusted)
    chosen = gateway.ready(model)
    if not (engines := frozenset(gateway.up())):
        raise UnfitTarget("no engine is up: make status")
    settings = RequestSettings(to=address_of(gateway.base), model=chosen, key=key, trusted=trusted)
    return ChaosTarget(cluster, containers, gateway, settings, engines, emulated)
