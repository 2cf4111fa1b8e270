"""/api/pools: a new model name, served by engines that are registered next, or elsewhere."""

from fastapi import APIRouter

from manyeyes.config.pools import Pool
from manyeyes.controller.config_sync.effective_config import EffectiveConfig
from manyeyes.controller.membership.fleet import Fleet
from manyeyes.controller.registry import registration_checks, schemas
from manyeyes.controller.registry.errors import error_responses, not_found
from manyeyes.controller.registry.registration_checks import OwnListeners, SecretFiles
from manyeyes.controller.registry.registrations import RegistrationService
from manyeyes.controller.registry.schemas import ModelList, NewPool, PoolList, PoolResponse, Removed
from manyeyes.openai_error import ApiError


def routes(
    fleet: Fleet,
    effective: EffectiveConfig,
    registrations: RegistrationService,
    secret_files: SecretFiles,
    own: OwnListeners,
) -> APIRouter:
    router = APIRouter(
        prefix="/api", tags=["pools and models"], responses=error_responses(401, 403, 404, 409, 422, 507)
    )

    @router.get("/pools")
    async def pools() -> PoolList:
        """All pools, also those that nobody serves yet."""
        return PoolList(pools=[schemas.pool_response(one, fleet, effective) for one in effective.cluster.pools])

    @router.post("/pools", status_code=201)
    async def register(form: NewPool) -> PoolResponse:
        """Registers a pool. With `remote` it answers at once; else as soon as an engine of it is up."""
        if form.model == "tiny" or form.model.startswith("/"):
            raise ApiError(
                422, "invalid_request", "A registered pool's model is a name: nothing is started for it here.", "model"
            )
        pool = Pool.model_validate(form.model_dump(exclude_unset=True))
        _refuse_fallback_to_strangers(pool, effective)
        if form.remote:
            await registration_checks.check_url(form.remote.url, effective.cluster, own, "remote.url")
            if form.remote.key_file:
                secret_files.check(form.remote.key_file, "remote.key_file")
            if form.remote.ca_file:
                secret_files.check(form.remote.ca_file, "remote.ca_file", authority=True)
        await registrations.add_pool(pool)
        fleet.emit_event(
            f"pool {pool.name} is registered by API" + (f", served at {form.remote.host}" if form.remote else ""),
            pool=pool.name,
        )
        return schemas.pool_response(effective.cluster.pool(pool.name), fleet, effective)

    @router.get("/pools/{name}")
    async def one(name: str) -> PoolResponse:
        """One pool."""
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
        """Every name a client may write in `model`, the pool it leads to, and the engines behind it."""
        return schemas.models_response(fleet, effective)

    return router


def _refuse_fallback_to_strangers(pool: Pool, effective: EffectiveConfig) -> None:
    """Engines that Compose started know the names they were started with; a new pool's is not among them."""
    strangers = [one.name for one in effective.cluster.started_engines if one.pool == pool.fallback]
    if strangers:
        raise ApiError(
            409,
            "fallback_knows_no_such_name",
            f"The engines of '{pool.fallback}' ({', '.join(strangers)}) were started without the name '{pool.name}' and would answer 404. "
            "Fall back to a pool served elsewhere, or write the pool into cluster.yaml and `make up`.",
            "fallback",
        )
