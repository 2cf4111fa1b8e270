"""Routes of the registry's API.

/api/engines registers, shows, weights, drains, resumes and removes engines. /api/pools does the same for pools, and
/api/models lists all model names.
"""

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter
from pydantic import BaseModel, Field

from manyeyes.config.custom_endpoint import Endpoint
from manyeyes.config.engines import Engine
from manyeyes.config.fields import host_problem, port_problem
from manyeyes.config.pools import Pool
from manyeyes.controller.config_sync.effective_config import EffectiveConfig
from manyeyes.controller.membership.fleet import Fleet
from manyeyes.controller.membership.membership_store import FleetMember
from manyeyes.controller.registry import registration_checks, schemas
from manyeyes.controller.registry.middleware import error_responses, not_found
from manyeyes.controller.registry.registration_checks import RegistrationChecks
from manyeyes.controller.registry.registrations import RegistrationService, free_port
from manyeyes.controller.registry.schemas import (
    EngineList,
    EngineResponse,
    ModelList,
    NewEngine,
    NewPool,
    PoolList,
    PoolResponse,
    Removed,
    WeightChange,
    in_flight,
)
from manyeyes.engine.vllm_flags import served_names
from manyeyes.openai_error import ApiError

DEFAULT_REASON = "by API"


class DrainRequest(BaseModel):
    """The reason, for the log and for other operators."""

    model_config = {"extra": "forbid", "json_schema_extra": {"examples": [{"reason": "another driver for GPU 1"}]}}

    reason: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")] = DEFAULT_REASON


class DrainResponse(BaseModel):
    """One engine after a drain or a resume."""

    name: str
    state: str
    """`draining` while the engine is up and drained, else its health state."""
    held: bool
    """It is drained."""
    in_flight: int | None
    """Requests that it still processes. null: unknown."""


def drain_routes(fleet: Fleet) -> APIRouter:
    router = APIRouter(prefix="/api/engines", tags=["engines"], responses=error_responses(401, 403, 404, 422))

    @router.post("/{name}/drain")
    async def drain(name: str, form: DrainRequest | None = None) -> DrainResponse:
        """Drains the engine: it gets no new requests and finishes those in flight. The call is idempotent."""
        member = find_member(fleet, name)
        fleet.drain(name, (form or DrainRequest()).reason)
        await fleet.flush_drains()
        return _drain_response(member)

    @router.post("/{name}/resume")
    async def resume(name: str, form: DrainRequest | None = None) -> DrainResponse:
        """Undrains the engine: it gets requests again when it is up."""
        member = find_member(fleet, name)
        fleet.undrain(name, (form or DrainRequest()).reason)
        await fleet.flush_drains()
        return _drain_response(member)

    return router


def find_member(fleet: Fleet, name: str) -> FleetMember:
    """The engine with this name. Raises ApiError 404."""
    if member := fleet.members.get(name):
        return member
    raise not_found("engine", name, list(fleet.members))


def _drain_response(member: FleetMember) -> DrainResponse:
    return DrainResponse(
        name=member.engine.name,
        state=member.health.shown.value,
        held=member.health.drained,
        in_flight=in_flight(member),
    )


def engine_routes(
    fleet: Fleet,
    effective: EffectiveConfig,
    registrations: RegistrationService,
    checks: RegistrationChecks,
    adapter_name: str,
) -> APIRouter:
    router = APIRouter(prefix="/api/engines", tags=["engines"], responses=error_responses(401, 403, 404, 409, 422, 507))

    @router.get("")
    async def engines() -> EngineList:
        """Lists all engines with their states, those of cluster.yaml first."""
        return EngineList(engines=[schemas.engine_response(member, effective) for member in fleet.members.values()])

    @router.post("", status_code=201)
    async def register(form: NewEngine) -> EngineResponse:
        """Registers an engine.

        It is probed, warmed up with one image, and then gets its share of the pool's requests.
        """
        pool = _pool(form, effective)
        targets = [field for field in ("address", "url", "endpoint") if getattr(form, field) is not None]
        if len(targets) != 1:
            raise ApiError(
                422,
                "invalid_request",
                f"An engine needs exactly one of address, url and endpoint, got {' and '.join(targets) or 'none'}.",
            )
        notice = ""
        if form.endpoint:
            await _check_endpoint(form.endpoint, checks)
            engine = await registrations.add_engine(
                lambda: _engine(form, pool, f"{adapter_name}:{free_port(effective.cluster)}")
            )
            if not await registration_checks.can_resolve(adapter_name):
                notice = "The adapter does not run. Set adapter.enabled to true in cluster.yaml, then run `make up`."
        else:
            address = form.address or _address(form.url or "")
            host, _, port = address.rpartition(":")
            await checks.check_address(host, int(port), targets[0])
            engine = await registrations.add_engine(_engine(form, pool, address))
            notice = registration_checks.missing_names_notice(
                served_names(effective.cluster, pool), await registration_checks.fetch_model_names(address)
            )
        fleet.emit_event(
            f"{engine.name} is registered by API: {engine.address} in pool {engine.pool}",
            engine=engine.name,
            pool=engine.pool,
        )
        return schemas.engine_response(find_member(fleet, engine.name), effective, notice)

    @router.get("/{name}")
    async def show_engine(name: str) -> EngineResponse:
        """Shows one engine."""
        return schemas.engine_response(find_member(fleet, name), effective)

    @router.patch("/{name}")
    async def change(name: str, form: WeightChange) -> EngineResponse:
        """Changes an engine's share of its pool's requests. It persists, also for an engine of cluster.yaml."""
        find_member(fleet, name)
        await registrations.set_weight(name, form.weight)
        fleet.emit_event(f"{name} gets weight {form.weight} by API", engine=name)
        return schemas.engine_response(find_member(fleet, name), effective)

    @router.delete("/{name}")
    async def remove(name: str) -> Removed:
        """Removes a registered engine. It gets no new requests; those in flight finish.

        An engine of cluster.yaml can be drained instead.
        """
        await registrations.remove_engine(name)
        fleet.emit_event(f"{name} is removed by API", engine=name)
        return Removed(name=name)

    return router


def _pool(form: NewEngine, effective: EffectiveConfig) -> Pool:
    if (form.pool is None) == (form.model is None):
        raise ApiError(422, "invalid_request", "An engine needs exactly one of pool and model.", "pool")
    pools = effective.cluster.pools
    if form.pool is not None:
        pool = next((pool for pool in pools if pool.name == form.pool), None)
    else:
        pool = schemas.client_names(pools).get(form.model or "")
    if pool is None:
        description = f"pool '{form.pool}'" if form.pool is not None else f"model '{form.model}'"
        param = "pool" if form.pool is not None else "model"
        pool_names = ", ".join(pool.name for pool in pools)
        raise ApiError(
            422,
            f"{param}_not_found",
            f"There is no {description}. Pools: {pool_names}. POST /api/pools registers a new pool.",
            param,
        )
    if pool.remote:
        raise ApiError(
            409,
            "pool_is_remote",
            f"Pool '{pool.name}' is remote: {pool.remote.host} serves it, so no engine can join it.",
            "pool",
        )
    return pool


def _engine(form: NewEngine, pool: Pool, address: str) -> Engine:
    return Engine(
        name=form.name,
        pool=pool.name,
        address=address,
        flavour=form.flavour,
        weight=form.weight,
        gpu_memory_gb=form.gpu_memory_gb,
        endpoint=form.endpoint,
    )


def _address(url: str) -> str:
    """Converts http://10.0.0.7:8000/v1 to 10.0.0.7:8000. Raises ApiError."""
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError:
        raise _wrong_url(url, "it is not a URL") from None
    if parts.scheme == "https":
        raise _wrong_url(url, "engines use plain HTTP; register an HTTPS endpoint as a pool with `remote`")
    if parts.scheme != "http" or not parts.hostname:
        raise _wrong_url(url, "it must begin with http://")
    if parts.username is not None or parts.password is not None:
        raise _wrong_url(url, "it must not contain a user name or password")
    if parts.path not in ("", "/", "/v1", "/v1/") or parts.query or parts.fragment:
        raise _wrong_url(url, "an engine's API is under /v1; register an API with another path as a pool with `remote`")
    address = f"{parts.hostname}:{port}"
    try:
        Engine(name="x", pool="x", address=address)
    except ValueError:
        if host_problem(parts.hostname).startswith("is not an address") and not port_problem(str(port)):
            return address  # RegistrationChecks.check_address() rejects it by its resolved address
        raise _wrong_url(url, "its host is neither a name nor an IPv4 address") from None
    return address


def _wrong_url(url: str, why: str) -> ApiError:
    return ApiError(422, "invalid_url", f"'{url[:100]}' is not a valid engine url: {why}.", "url")


async def _check_endpoint(endpoint: Endpoint, checks: RegistrationChecks) -> None:
    await checks.check_url(endpoint.url, "endpoint.url")
    if endpoint.stream and endpoint.stream.url:
        await checks.check_url(endpoint.stream.url, "endpoint.stream.url")
    for name in endpoint.secret_files:
        await checks.check_secret(name, "endpoint", authority=name == endpoint.ca_file)


def pool_routes(
    fleet: Fleet,
    effective: EffectiveConfig,
    registrations: RegistrationService,
    checks: RegistrationChecks,
) -> APIRouter:
    router = APIRouter(
        prefix="/api", tags=["pools and models"], responses=error_responses(401, 403, 404, 409, 422, 507)
    )

    @router.get("/pools")
    async def pools() -> PoolList:
        """Lists all pools, including those that no engine serves yet."""
        return PoolList(pools=[schemas.pool_response(pool, fleet, effective) for pool in effective.cluster.pools])

    @router.post("/pools", status_code=201)
    async def register(form: NewPool) -> PoolResponse:
        """Registers a pool. It serves requests immediately with `remote`, else as soon as one of its engines is up."""
        if form.model == "tiny" or form.model.startswith("/"):
            raise ApiError(
                422,
                "invalid_request",
                f"model: expected a model name, got '{form.model}'. No engines are started for a registered pool.",
                "model",
            )
        pool = Pool.model_validate(form.model_dump(exclude_unset=True))
        _refuse_fallback_to_strangers(pool, effective)
        if form.remote:
            await checks.check_url(form.remote.url, "remote.url")
            if form.remote.key_file:
                await checks.check_secret(form.remote.key_file, "remote.key_file")
            if form.remote.ca_file:
                await checks.check_secret(form.remote.ca_file, "remote.ca_file", authority=True)
        await registrations.add_pool(pool)
        fleet.emit_event(
            f"pool {pool.name} is registered by API" + (f", served by {form.remote.host}" if form.remote else ""),
            pool=pool.name,
        )
        return schemas.pool_response(effective.cluster.pool(pool.name), fleet, effective)

    @router.get("/pools/{name}")
    async def show_pool(name: str) -> PoolResponse:
        """Shows one pool."""
        try:
            return schemas.pool_response(effective.cluster.pool(name), fleet, effective)
        except KeyError:
            raise not_found("pool", name, [pool.name for pool in effective.cluster.pools]) from None

    @router.delete("/pools/{name}")
    async def remove(name: str) -> Removed:
        """Removes a registered pool that has no engines."""
        await registrations.remove_pool(name)
        fleet.emit_event(f"pool {name} is removed by API", pool=name)
        return Removed(name=name)

    @router.get("/models")
    async def models() -> ModelList:
        """Lists every name that clients may send in `model`, with its pool and its engines."""
        return schemas.models_response(fleet, effective)

    return router


def _refuse_fallback_to_strangers(pool: Pool, effective: EffectiveConfig) -> None:
    """Rejects a fallback pool whose engines Compose started: they accept only the names from their command line."""
    strangers = [engine.name for engine in effective.cluster.started_engines if engine.pool == pool.fallback]
    if strangers:
        raise ApiError(
            409,
            "fallback_knows_no_such_name",
            f"The engines of '{pool.fallback}' ({', '.join(strangers)}) were started without the name '{pool.name}' "
            "and would respond with 404. "
            "Use a remote pool as the fallback, or add the pool to cluster.yaml and run `make up`.",
            "fallback",
        )
