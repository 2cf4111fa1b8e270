"""Restarts and replaces engine containers of Compose.

A rolling restart uses it, and so does `make up` when the names of engines changed: an old engine serves until its
replacement is up.
"""

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

from manyeyes.cli import gateway_client, readiness, start_failure, started_services
from manyeyes.cli.compose import AS_IT_IS, Compose
from manyeyes.cli.docker_api import docker_client
from manyeyes.cli.engine_restart import EngineStatus, RestartTimes
from manyeyes.cli.process import CommandFailed
from manyeyes.cli.terminal import CliError, print_warning, step
from manyeyes.config.checkout import ROOT
from manyeyes.config.cluster import Cluster
from manyeyes.config.placement import PlacedCluster

REASON = "rolling restart"
DEADLINE_S = {"emulated": 120.0, "cpu": 900.0, "cuda": 5400.0}
"""Maximum time until an engine is up. For GPUs it includes the download of the model."""
SLACK_S = 2.0
"""Time in which nginx queries the controller's DNS again and gets an answer."""


class EngineContainers:
    """An Actuator (engine_restart.py) for engines that Compose runs."""

    def __init__(self, cluster: Cluster, compose: Compose) -> None:
        self.cluster, self.compose = cluster, compose
        self.folder: Path = ROOT / compose.rendered

    def look(self) -> dict[str, EngineStatus]:
        pools = gateway_client.healthz(self.cluster).get("pools", [])
        return {
            one["name"]: EngineStatus(pool["name"], one["state"], one["in_flight"])
            for pool in pools
            for one in pool["engines"]
        }

    def hold(self, name: str) -> None:
        gateway_client.drain(self.compose, self.cluster, name, REASON)

    def release(self, name: str) -> None:
        gateway_client.resume(self.compose, self.cluster, name, REASON)

    def stop(self, name: str) -> None:
        self._compose("stop", name, what=f"{name} could not be stopped")

    def start(self, name: str) -> None:
        self._compose("up", "--no-deps", "--force-recreate", *AS_IT_IS, name, what=f"{name} could not be started")
        started_services.record(self.folder, [name])

    def why_not_up(self, name: str) -> str:
        return f"it exits repeatedly: {self.last_words(name)}" if readiness.failed(self.compose, {name}) else ""

    def last_words(self, name: str) -> str:
        """The error with which the engine exited, else the last line of its log."""
        if cause := start_failure.cause_of(self.compose, name):
            return cause
        lines = self.compose.logs(name, 1).strip().splitlines()
        return lines[-1].strip()[:200] if lines else "it printed nothing"

    def _compose(self, *arguments: str, what: str) -> None:
        try:
            self.compose(*arguments, timeout_s=self.cluster.shutdown.grace_s + 120)
        except (CommandFailed, TimeoutError) as error:
            details = error.output if isinstance(error, CommandFailed) else str(error)
            raise CliError(what, details=details) from error


def restart_times(cluster: PlacedCluster) -> RestartTimes:
    """Returns the times of one engine's restart, from the configuration."""
    told_s = max(1, cluster.controller.dns_ttl_s) + SLACK_S
    flavours = {one.flavour for one in cluster.started_engines} or {"emulated"}
    return RestartTimes(
        # Plus one probe of the controller, so that its number of requests in flight is newer than the DNS change.
        leave_s=told_s + cluster.controller.probe_interval_s,
        finish_s=cluster.shutdown.finish_s,
        stop_s=cluster.shutdown.grace_s + 30,
        start_s=max(DEADLINE_S[one] for one in flavours),
    )


LOOK_EVERY_S = 0.5


def engines_to_replace(cluster: PlacedCluster, compose: Compose, running: set[str]) -> list[str]:
    """Returns the running engines that are not in the configuration; empty if all engines move to another network."""
    if compose.subnet() != str(cluster.network.subnet):
        return []
    wanted = {one.name for one in cluster.started_engines}
    services = started_services.services(ROOT / compose.rendered)
    return [
        name
        for name, service in services.items()
        if name in running and name not in wanted and "manyeyes.engine" in service.get("labels", {})
    ]


def replace(cluster: PlacedCluster, compose: Compose, fresh: Sequence[str], old: Sequence[str]) -> None:
    """Starts each engine of `fresh`, and removes one engine of `old` when the new engine is up. Raises CliError.

    If both need the same GPU, the old engine is removed first.
    """
    folder, left = ROOT / compose.rendered, list(old)
    for number, name in enumerate(fresh, start=1):
        for holder in [
            one
            for one in left
            if _gpus_of_container(compose, one)
            & set(next(one.gpus for one in cluster.started_engines if one.name == name))
        ]:
            left.remove(holder)
            _tell_gap(cluster, compose, holder, name)
            _end(cluster, compose, holder)
        with step(f"starting {name}") as current:
            try:
                compose("up", *AS_IT_IS, name)
            except CommandFailed as error:
                raise CliError(f"{name} could not be started: {error.last_line}", details=error.output) from error
            readiness.wait_until_up(cluster, compose, current, restart_times(cluster).start_s, {name})
        # The controller drops old engines when no engine is left to be started, so remove them before recording that.
        ending = left[:1] if number < len(fresh) else left
        left = left[len(ending) :]
        for one in ending:
            _end(cluster, compose, one)
        started_services.record(folder, [name])
    for name in left:
        _end(cluster, compose, name)


def _gpus_of_container(compose: Compose, name: str) -> set[str]:
    """Returns the GPUs of the engine's container."""
    resources = started_services.services(ROOT / compose.rendered).get(name, {}).get("deploy", {}).get("resources", {})
    devices = resources.get("reservations", {}).get("devices", ())
    return {str(gpu) for device in devices for gpu in device.get("device_ids", ())}


def _tell_gap(cluster: PlacedCluster, compose: Compose, old: str, name: str) -> None:
    looks = EngineContainers(cluster, compose).look()
    mine = looks.get(old)
    if mine and not any(other != old and one.pool == mine.pool for other, one in looks.items()):
        print_warning(
            f"{old} uses the GPU that {name} needs, and pool {mine.pool} has no other engine. "
            f"Until {name} is up, the pool's fallback answers, or clients get 503."
        )


def _end(cluster: PlacedCluster, compose: Compose, name: str) -> None:
    """Drains the engine, waits for its requests in flight, and removes its container."""
    engines, times, folder = EngineContainers(cluster, compose), restart_times(cluster), ROOT / compose.rendered
    with step(f"removing {name}"):
        if name in engines.look():
            with contextlib.suppress(CliError):  # the controller no longer knows it, so it gets no new requests
                gateway_client.drain(compose, cluster, name, REASON)
            began_s = time.monotonic()
            while (past_s := time.monotonic() - began_s) < times.leave_s + times.finish_s:
                mine = engines.look().get(name)
                if past_s >= times.leave_s and (mine is None or mine.in_flight == 0):
                    break
                time.sleep(LOOK_EVERY_S)
        ids = [row["Id"] for row in compose.containers() if row["Service"] == name]
        try:
            with docker_client(cluster.shutdown.grace_s + 120) as client:
                for one in ids:
                    client.api.stop(one)
                    client.api.remove_container(one)
        except CliError as error:
            raise CliError(f"{name} could not be removed: {error}. Run `make up` again.") from error
        started_services.keep_only(folder, [one for one in started_services.services(folder) if one != name])
