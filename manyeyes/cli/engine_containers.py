"""Restarts and replaces engine containers of Compose.

A rolling restart uses it, and so does `make up` when the names of engines changed: an old engine serves until its
replacement is up.
"""

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

from manyeyes.cli import gateway_client, readiness, start_failure, started_services
from manyeyes.cli.compose import LOCAL_IMAGES_ONLY, Compose
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

    def query_engines(self) -> dict[str, EngineStatus]:
        pools = gateway_client.healthz(self.cluster).get("pools", [])
        return {
            engine["name"]: EngineStatus(pool["name"], engine["state"], engine["in_flight"])
            for pool in pools
            for engine in pool["engines"]
        }

    def drain(self, name: str) -> None:
        gateway_client.drain(self.compose, self.cluster, name, REASON)

    def resume(self, name: str) -> None:
        gateway_client.resume(self.compose, self.cluster, name, REASON)

    def stop(self, name: str) -> None:
        self._compose("stop", name, failure=f"{name} could not be stopped")

    def start(self, name: str) -> None:
        self._compose(
            "up", "--no-deps", "--force-recreate", *LOCAL_IMAGES_ONLY, name, failure=f"{name} could not be started"
        )
        started_services.record(self.folder, [name])

    def find_start_failure(self, name: str) -> str:
        return (
            f"it exits repeatedly: {self.last_error(name)}"
            if readiness.find_failed_engine(self.compose, {name})
            else ""
        )

    def last_error(self, name: str) -> str:
        """The error with which the engine exited, else the last line of its log."""
        if cause := start_failure.find_cause(self.compose, name):
            return cause
        lines = self.compose.logs(name, 1).strip().splitlines()
        return lines[-1].strip()[:200] if lines else "it printed nothing"

    def _compose(self, *arguments: str, failure: str) -> None:
        try:
            self.compose(*arguments, timeout_s=self.cluster.shutdown.grace_s + 120)
        except (CommandFailed, TimeoutError) as error:
            details = error.output if isinstance(error, CommandFailed) else str(error)
            raise CliError(failure, details=details) from error


def restart_times(cluster: PlacedCluster) -> RestartTimes:
    """Returns the times of one engine's restart, from the configuration."""
    dns_change_s = max(1, cluster.controller.dns_ttl_s) + SLACK_S
    flavours = {engine.flavour for engine in cluster.started_engines} or {"emulated"}
    return RestartTimes(
        # Plus one probe of the controller, so that its number of requests in flight is newer than the DNS change.
        leave_s=dns_change_s + cluster.controller.probe_interval_s,
        finish_s=cluster.shutdown.finish_s,
        stop_s=cluster.shutdown.grace_s + 30,
        start_s=max(DEADLINE_S[flavour] for flavour in flavours),
    )


POLL_INTERVAL_S = 0.5


def engines_to_replace(cluster: PlacedCluster, compose: Compose, running: set[str]) -> list[str]:
    """Returns the running engines that are not in the configuration; empty if all engines move to another network."""
    if compose.subnet() != str(cluster.network.subnet):
        return []
    desired = {engine.name for engine in cluster.started_engines}
    services = started_services.services(ROOT / compose.rendered)
    return [
        name
        for name, service in services.items()
        if name in running and name not in desired and "manyeyes.engine" in service.get("labels", {})
    ]


def replace(cluster: PlacedCluster, compose: Compose, new: Sequence[str], old: Sequence[str]) -> None:
    """Starts each engine of `new`, and removes one engine of `old` when the new engine is up. Raises CliError.

    If both need the same GPU, the old engine is removed first.
    """
    folder, remaining = ROOT / compose.rendered, list(old)
    for number, name in enumerate(new, start=1):
        for old_name in [
            candidate
            for candidate in remaining
            if _gpus_of_container(compose, candidate)
            & set(next(engine.gpus for engine in cluster.started_engines if engine.name == name))
        ]:
            remaining.remove(old_name)
            _warn_about_gap(cluster, compose, old_name, name)
            _remove_engine(cluster, compose, old_name)
        with step(f"starting {name}") as current:
            try:
                compose("up", *LOCAL_IMAGES_ONLY, name)
            except CommandFailed as error:
                raise CliError(f"{name} could not be started: {error.last_line}", details=error.output) from error
            readiness.wait_until_up(cluster, compose, current, restart_times(cluster).start_s, {name})
        # The controller drops old engines when no engine is left to be started, so remove them before recording that.
        replaced = remaining[:1] if number < len(new) else remaining
        remaining = remaining[len(replaced) :]
        for old_name in replaced:
            _remove_engine(cluster, compose, old_name)
        started_services.record(folder, [name])
    for name in remaining:
        _remove_engine(cluster, compose, name)


def _gpus_of_container(compose: Compose, name: str) -> set[str]:
    """Returns the GPUs of the engine's container."""
    resources = started_services.services(ROOT / compose.rendered).get(name, {}).get("deploy", {}).get("resources", {})
    devices = resources.get("reservations", {}).get("devices", ())
    return {str(gpu) for device in devices for gpu in device.get("device_ids", ())}


def _warn_about_gap(cluster: PlacedCluster, compose: Compose, old: str, name: str) -> None:
    statuses = EngineContainers(cluster, compose).query_engines()
    old_status = statuses.get(old)
    if old_status and not any(
        engine_name != old and status.pool == old_status.pool for engine_name, status in statuses.items()
    ):
        print_warning(
            f"{old} uses the GPU that {name} needs, and pool {old_status.pool} has no other engine. "
            f"Until {name} is up, the pool's fallback answers, or clients get 503."
        )


def _remove_engine(cluster: PlacedCluster, compose: Compose, name: str) -> None:
    """Drains the engine, waits for its requests in flight, and removes its container."""
    engines, times, folder = EngineContainers(cluster, compose), restart_times(cluster), ROOT / compose.rendered
    with step(f"removing {name}"):
        if name in engines.query_engines():
            with contextlib.suppress(CliError):  # the controller no longer knows it, so it gets no new requests
                gateway_client.drain(compose, cluster, name, REASON)
            started_s = time.monotonic()
            while (elapsed_s := time.monotonic() - started_s) < times.leave_s + times.finish_s:
                status = engines.query_engines().get(name)
                if elapsed_s >= times.leave_s and (status is None or status.in_flight == 0):
                    break
                time.sleep(POLL_INTERVAL_S)
        container_ids = [row["Id"] for row in compose.containers() if row["Service"] == name]
        try:
            with docker_client(cluster.shutdown.grace_s + 120) as client:
                for container_id in container_ids:
                    client.api.stop(container_id)
                    client.api.remove_container(container_id)
        except CliError as error:
            raise CliError(f"{name} could not be removed: {error}. Run `make up` again.") from error
        started_services.keep_only(
            folder, [service for service in started_services.services(folder) if service != name]
        )
