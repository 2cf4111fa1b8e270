"""HTTP API of the autoscaler: shows how many engines a pool has and why, and sets the count by hand."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from manyeyes.config.pools import Pool
from manyeyes.controller.autoscaling.autoscaler import Autoscaler
from manyeyes.controller.autoscaling.policy import ScalingDecision
from manyeyes.controller.autoscaling.reconcile import LifecycleStage
from manyeyes.controller.registry.middleware import error_responses, not_persisted
from manyeyes.openai_error import ApiError


class ScaleRequest(BaseModel):
    """The number of engines that the pool should have."""

    model_config = {"extra": "forbid", "json_schema_extra": {"examples": [{"engines": 2}]}}

    engines: Annotated[int, Field(ge=1, le=10_000)] | None
    """A number stays active until null is set. Then the pool's policy decides; without a policy all engines run."""


class EngineStageResponse(BaseModel):
    name: str
    stage: str
    """starting, serving, draining, stopped, or unavailable: started but not usable, because it is down, drained by an
    operator, or did not come up."""
    state: str
    in_flight: int | None


class DecisionResponse(BaseModel):
    at: str
    desired: int
    reason: str
    sentence: str


class PoolScalingResponse(BaseModel):
    """The scaling state of one pool."""

    pool: str
    policy: dict[str, Any] | None
    """The effective pools[].scaling. null: all engines always run."""
    desired: int | None
    """Desired number of engines. null: there is no decision yet."""
    fixed: int | None
    """The count set by hand. null: none is set."""
    started: int
    serving: int
    problem: str | None
    """Why its engines cannot be started or stopped. null: they can."""
    load: dict[str, float | None] | None
    """The load on which the last decision is based."""
    decision: DecisionResponse | None
    engines: list[EngineStageResponse]
    history: list[DecisionResponse]
    """Decisions that changed something, newest first."""


def routes(scaler: Autoscaler) -> APIRouter:
    router = APIRouter(prefix="/api/pools", tags=["scaling"], responses=error_responses(401, 403, 404, 409, 422, 507))

    @router.get("/{pool}/scaling")
    async def scaling(pool: str) -> PoolScalingResponse:
        """Shows how many engines the pool should have, how many it has, and why."""
        return pool_scaling_response(scaler, _find_pool(scaler, pool))

    @router.post("/{pool}/scale")
    async def scale(pool: str, request: ScaleRequest) -> PoolScalingResponse:
        """Sets the count by hand. It survives restarts of the controller and takes effect within seconds."""
        target = _find_pool(scaler, pool)
        _check_count(scaler, target, request.engines)
        if not await scaler.fix(target.name, _all_engines_without_policy(scaler, target, request.engines)):
            raise not_persisted()
        scaler.fleet.emit_event(
            f"{target.name} is set to {request.engines} engines by hand"
            if request.engines is not None
            else f"{target.name}: the count set by hand is removed",
            pool=target.name,
        )
        return pool_scaling_response(scaler, target)

    return router


def _find_pool(scaler: Autoscaler, name: str) -> Pool:
    """The pool with this name, or with this client name. Raises ApiError 404."""
    for pool in scaler.fleet.cluster.pools:
        if name in pool.names:
            return pool
    names = ", ".join(pool.name for pool in scaler.fleet.cluster.pools[:20])
    raise ApiError(404, "pool_not_found", f"There is no pool '{name[:40]}'. Pools: {names}.")


def _check_count(scaler: Autoscaler, pool: Pool, desired: int | None) -> None:
    """Raises ApiError when the pool cannot have this many engines."""
    if pool.remote:
        raise ApiError(409, "pool_is_remote", f"{pool.name} is served by {pool.remote.host}; it has no engines here.")
    available = len(scaler.fleet.members_of(pool.name))
    if desired is not None and desired > available:
        raise ApiError(
            422,
            "too_many_engines",
            f"{pool.name} has {available} engine{'' if available == 1 else 's'}, but {desired} were requested. "
            "Add engines in config/cluster.yaml (`engines`, or with `engines: auto` more GPUs, `emulated_engines` or "
            "`cpu_engines`), then run `make up`.",
            "engines",
        )
    if not scaler.can_move(pool.name):
        raise ApiError(
            409,
            "cannot_scale",
            "The controller is not allowed to start or stop containers. "
            "Set controller.containers to true in config/cluster.yaml, then run `make up`.",
        )


def _all_engines_without_policy(scaler: Autoscaler, pool: Pool, desired: int | None) -> int | None:
    """Without a policy, stopped engines would never start again, so `null` then sets the count to all engines."""
    if desired is None and scaler.pools[pool.name].scaling is None and scaler.pools[pool.name].fixed is not None:
        return len(scaler.fleet.members_of(pool.name))
    return desired


def pool_scaling_response(scaler: Autoscaler, pool: Pool) -> PoolScalingResponse:
    """Builds the API's response for one pool."""
    state = scaler.pools[pool.name]
    engines = scaler.engines(pool.name)
    load = scaler.loads.get(pool.name)
    decision = scaler.decisions.get(pool.name)
    return PoolScalingResponse(
        pool=pool.name,
        policy=state.scaling.model_dump(mode="json") if state.scaling else None,
        desired=state.desired or None,
        fixed=state.fixed,
        started=sum(engine.stage is not LifecycleStage.STOPPED for engine in engines),
        serving=sum(engine.stage is LifecycleStage.SERVING for engine in engines),
        problem=scaler.lifecycle.problems.get(pool.name),
        load=None
        if load is None
        else {kind: getattr(load, kind) for kind in ("serving", "in_flight", "queue_time_s", "p95_s", "gpu")},
        decision=None if decision is None else _decision_response(decision),
        engines=[
            EngineStageResponse(
                name=engine.name,
                stage=engine.stage.value,
                state=scaler.fleet.members[engine.name].health.shown.value,
                in_flight=engine.in_flight,
            )
            for engine in engines
        ],
        history=[_decision_response(past) for past in reversed(scaler.history[pool.name])],
    )


def _decision_response(decision: ScalingDecision) -> DecisionResponse:
    return DecisionResponse(
        at=datetime.fromtimestamp(decision.at_s, UTC).isoformat(timespec="seconds"),
        desired=decision.desired,
        reason=decision.reason.value,
        sentence=decision.sentence,
    )
