"""The controller's HTTP endpoints: health, status, metrics, Prometheus targets, events.

Reachable inside the cluster only.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI, Response
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from manyeyes.config.pools import Pool
from manyeyes.controller.config_sync.config_watcher import ConfigWatcher
from manyeyes.controller.health.states import SERVES, EngineState
from manyeyes.controller.membership.engine_monitor import RemoteEndpoint
from manyeyes.controller.membership.fleet import Fleet
from manyeyes.controller.membership.membership_store import FleetMember
from manyeyes.controller.supervision import record_failure
from manyeyes.controller.telemetry.access_log_receiver import AccessLog

NOISE = "random weights, so its answers are noise"
CANNED = "emulated, so no model runs and its answers are canned text"
LOAD_FIELDS = ("running", "waiting", "in_flight", "hidden_queue", "kv_cache_share", "tokens_per_s")


def create_app(fleet: Fleet, requests: AccessLog, refresh: Callable[[], None] = lambda: None) -> FastAPI:
    """Builds the application. `refresh` is called before each metrics response."""
    # The API page ships its own scripts: the browser that opens it may reach only this gateway.
    app = FastAPIOffline(
        title="ManyEyes controller",
        docs_url="/api/docs",
        openapi_url="/api/openapi.json",
        swagger_ui_oauth2_redirect_url="/api/docs/oauth2-redirect",
        redoc_url=None,
        static_url="/api/docs-files",
    )

    @app.get("/live")
    async def live() -> dict[str, str]:
        """200 while the process runs."""
        return {"status": "ok"}

    @app.get("/ready")
    async def ready(response: Response) -> dict[str, Any]:
        """200 once the state of every engine is known, so that DNS answers are valid; 503 before."""
        unsettled = [name for name, member in fleet.members.items() if not member.health.settled]
        response.status_code = 503 if unsettled else 200
        return {"status": "ok" if not unsettled else "starting", "unsettled": unsettled}

    @app.get("/status")
    async def status() -> Response:
        """Pools and engines with their states, as the gateway's /healthz and the web UI show them."""
        return Response(orjson.dumps(cluster_status(fleet, requests)), media_type="application/json")

    @app.get("/sd")
    async def service_discovery() -> list[dict[str, Any]]:
        """Prometheus http_sd: every engine, up or not, so that a dead engine shows as up=0."""
        return [
            {
                "targets": [f"{member.engine.host}:{member.engine.port}"],
                "labels": {"engine": name, "pool": member.engine.pool, "flavour": member.engine.flavour},
            }
            for name, member in fleet.members.items()
        ]

    @app.get("/api/events")
    async def events() -> list[dict[str, str]]:
        """The latest events, newest first, one sentence each."""
        return list(reversed(fleet.events))

    @app.get("/metrics")
    async def metrics() -> Response:
        """Prometheus text format."""
        try:
            requests.count_dropped()
            # In threads: `refresh` reads files, and with 200 engines the response takes 0.1 s. DNS must be answered
            # during that time.
            await asyncio.to_thread(refresh)
        except Exception:
            record_failure("metrics")
        return Response(await asyncio.to_thread(generate_latest), media_type=CONTENT_TYPE_LATEST)

    return app


def cluster_status(fleet: Fleet, requests: AccessLog) -> dict[str, Any]:
    """{"pools": [{name, model, names, fallback, notice, up, total, ..., engines: [...]}, ...]}, in file order."""
    return {"pools": [_pool_status(fleet, requests, pool) for pool in fleet.cluster.served_pools]}


def _pool_status(fleet: Fleet, requests: AccessLog, pool: Pool) -> dict[str, Any]:
    served = _elsewhere(fleet.remotes[pool.name]) if pool.remote else _by_engines(fleet, requests, pool)
    return {
        "name": pool.name,
        "model": pool.model,
        "names": list(pool.names),
        "max_model_len": pool.max_model_len,
        "fallback": pool.fallback,
        "p95_ms": requests.p95_ms(pool.name),
        "first_byte_p95_ms": requests.first_byte_p95_ms(pool.name),
        **served,
    }


def _by_engines(fleet: Fleet, requests: AccessLog, pool: Pool) -> dict[str, Any]:
    members = fleet.members_of(pool.name)
    flavours = sorted({member.engine.flavour for member in members})
    return {
        "flavour": ", ".join(flavours),
        "notice": NOISE if pool.is_tiny and "emulated" not in flavours else CANNED if "emulated" in flavours else "",
        "up": sum(member.health.shown in SERVES for member in members),
        "total": len(members),
        "engines": [_engine_status(member, requests) for member in members],
    }


def _elsewhere(there: RemoteEndpoint) -> dict[str, Any]:
    """A remote pool counts as up unless its endpoint is known to be unreachable. Requests go there in both cases."""
    endpoint: dict[str, Any] = {
        "name": there.remote.host,
        "state": EngineState.REMOTE.value,
        "reason": there.why,
        "reachable": there.reachable,
        "since": there.since.isoformat(timespec="seconds"),
        "last_success": None,
        "flavour": "remote",
        "gpus": [],
        "address": None,
        **dict.fromkeys(LOAD_FIELDS),
    }
    up = int(there.reachable is not False)
    return {"flavour": "remote", "notice": "", "up": up, "total": 1, "engines": [endpoint]}


def _engine_status(member: FleetMember, requests: AccessLog) -> dict[str, Any]:
    last_success = requests.last_success.get(member.engine.name)
    return {
        "name": member.engine.name,
        "state": member.health.shown.value,
        "reason": member.reason,
        "since": member.since.isoformat(timespec="seconds"),
        "last_success": last_success.isoformat(timespec="milliseconds") if last_success else None,
        "flavour": member.engine.flavour,
        "gpus": list(member.engine.gpus),
        "address": f"{member.address}:{member.engine.port}" if member.address else None,
        **{field: getattr(member.load, field, None) for field in LOAD_FIELDS},
    }


def configuration_router(configuration: ConfigWatcher) -> APIRouter:
    """The route that reports the state of the configuration."""
    routes = APIRouter()

    @routes.get("/api/configuration")
    async def status() -> dict[str, Any]:
        """Reports {applied: {at, digest}, validated: digest, refused: [problem], gateway: {desired, active, problem},
        needs: [sentence]}."""
        return configuration.status()

    return routes
