"""Engines as Compose's containers, for a rolling restart."""

from pathlib import Path

from manyeyes.cli import controller_client, gateway_client, readiness, start_failure, started_services
from manyeyes.cli.compose import Compose
from manyeyes.cli.errors import CliError
from manyeyes.cli.process import CommandFailed
from manyeyes.cli.rolling.runner import EngineStatus
from manyeyes.cli.rolling.state_machine import RestartTimes
from manyeyes.config.checkout import ROOT
from manyeyes.config.cluster import Cluster
from manyeyes.config.placement import PlacedCluster

REASON = "rolling restart"
DEADLINE_S = {"emulated": 120.0, "cpu": 900.0, "cuda": 5400.0}
"""How long an engine may take to come up: a GPU's includes the download of its model."""
SLACK_S = 2.0
"""For nginx to ask the controller again and to hear its answer."""


class EngineContainers:
    """An Actuator (manyeyes/cli/rolling/runner.py)."""

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
        controller_client.drain(self.compose, self.cluster, name, REASON)

    def release(self, name: str) -> None:
        controller_client.resume(self.compose, self.cluster, name, REASON)

    def stop(self, name: str) -> None:
        self._compose("stop", name, what=f"{name} could not be stopped")

    def start(self, name: str) -> None:
        arguments = ["up", "--detach", "--no-deps", "--no-build", "--pull", "never", "--force-recreate"]
        self._compose(*arguments, name, what=f"{name} could not be started")
        started_services.record(self.folder, [name])

    def why_not_up(self, name: str) -> str:
        return f"it ends again and again: {self.last_words(name)}" if readiness.failed(self.compose, {name}) else ""

    def last_words(self, name: str) -> str:
        """The error that it ended with, else the last line it printed."""
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
    """Times of one engine's turn, from the configuration."""
    told_s = max(1, cluster.controller.dns_ttl_s) + SLACK_S
    flavours = {one.flavour for one in cluster.started_engines} or {"emulated"}
    return RestartTimes(
        # One look of the controller more, so that what it says of requests in flight was seen after that.
        leave_s=told_s + cluster.controller.probe_interval_s,
        finish_s=cluster.shutdown.finish_s,
        stop_s=cluster.shutdown.grace_s + 30,
        start_s=max(DEADLINE_S[one] for one in flavours),
    )
