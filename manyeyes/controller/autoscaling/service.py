"""Scaling and the restarts of hung engines, run beside the rest of the controller."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from manyeyes.controller.autoscaling.actuators import ContainerActuator
from manyeyes.controller.autoscaling.autoscaler import Autoscaler
from manyeyes.controller.autoscaling.hung_restart import HungRestarts
from manyeyes.controller.autoscaling.store import LoadRecorder
from manyeyes.controller.config_sync.effective_config import EffectiveConfig
from manyeyes.controller.membership.fleet import Fleet
from manyeyes.controller.state_store import StateStore
from manyeyes.controller.telemetry.access_log_receiver import AccessLog


@contextlib.asynccontextmanager
async def run_autoscaler(
    fleet: Fleet, in_force: EffectiveConfig, requests: AccessLog, kept: StateStore, containers_url: str, records: Path
) -> AsyncIterator[Autoscaler]:
    """Runs while the context lasts. To be entered before engines are watched, so that none that sleeps is taken for one that is up."""
    cluster = in_force.cluster
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=50)
    async with httpx.AsyncClient(limits=limits, trust_env=False) as client:
        containers = None
        if cluster.controller.containers:
            containers = ContainerActuator(client, containers_url, cluster.name, cluster.shutdown.grace_s)
        record = LoadRecorder(records) if cluster.controller.record_load else None
        scaler = Autoscaler(fleet, requests, kept, client, containers, record)
        in_force.listen(scaler.listen)
        loops = [asyncio.create_task(scaler.run())]
        if containers:
            loops.append(asyncio.create_task(HungRestarts(fleet, containers, scaler.is_moving).run()))
        try:
            yield scaler
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
