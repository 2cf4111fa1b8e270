"""Scaling over HTTP: how many engines a pool has and why, and a count set by hand."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from manyeyes.config.pools import Pool
from manyeyes.controller.autoscaling.autoscaler import Autoscaler
from manyeyes.controller.autoscaling.policy import ScalingDecision
from manyeyes.controller.autoscaling.reconcile import LifecycleStage
from manyeyes.controller.registry.middleware import error_responses
from manyeyes.openai_error import ApiError


class ScaleRequest(BaseModel):
    """How many engines."""

    model_config = {"extra": "forbid", "json_schema_extra": {"examples": [{"engines": 2}]}}

    engines: Annotated[int, Field(ge=1, le=10_000)] | None
    """In force until it is null: then the pool's own policy decides again, or all engines run where it has none."""


class EngineStageResponse(BaseModel):
    name: str
    stage: str
    """serving, coming, going, off, or away: started and of no use (down, drained by a person, or never up)."""
    state: str
    in_flight: int | None


class DecisionResponse(BaseModel):
    at: str
    wanted: int
    reason: str
    sentence: str


class PoolScalingResponse(BaseModel):
    """One pool's scaling."""

    pool: str
    policy: dict[str, Any] | None
    """pools[].scaling as it is in force. null: all engines always run."""
    wanted: int | None
    """null: nothing was decided yet."""
    fixed: int | None
    """The count set by hand."""
    started: int
    serving: int
    trouble: str | None
    """Why its engines cannot be started or stopped for now."""
    load: dict[str, float | None] | None
    """What the last decision saw."""
    decision: DecisionResponse | None
    engines: list[EngineStageResponse]
    history: list[DecisionResponse]
    """Decisions that changed something, newest first."""


def routes(scaler: Autoscaler) -> APIRouter:
    router = APIRouter(prefix="/api/pools", tags=["scaling"], responses=error_responses(401, 403, 404, 409, 422))

    @router.get("/{pool}/scaling")
    async def scaling(pool: str) -> PoolScalingResponse:
        """How many engines the pool should have, how many it has, and why."""
        return pool_scaling_response(scaler, _found(scaler, pool))

    @router.post("/{pool}/scale")
    async def scale(pool: str, wanted: ScaleRequest) -> PoolScalingResponse:
        """Sets the count by hand, over restarts of the controller too. It takes effect with the next decision, in a few seconds."""
        found = _found(scaler, pool)
        _check(scaler, found, wanted.engines)
        scaler.fix(found.name, _all_where_no_policy(scaler, found, wanted.engines))
        scaler.fleet.emit_event(
            f"{found.name} is set to {wanted.engines} engines by hand"
            if wanted.engines is not None
            else f"{found.name} is no longer set by hand",
            pool=found.name,
        )
        return pool_scaling_response(scaler, found)

    return router


def _found(scaler: Autoscaler, name: str) -> Pool:
    """Raises ApiError 404."""
    for pool in scaler.fleet.cluster.pools:
        if name in pool.names:
            return pool
    names = ", ".join(pool.name for pool in scaler.fleet.cluster.pools[:20])
    raise ApiError(404, "pool_not_found", f"There is no pool '{name[:40]}'. There are: {names}.")


def _check(scaler: Autoscaler, pool: Pool, wanted: int | None) -> None:
    """Raises ApiError where the count cannot be had."""
    if pool.remote:
        raise ApiError(409, "pool_is_remote", f"{pool.name} is served by {pool.remote.host}; it has no engines here.")
    there = len(scaler.fleet.members_of(pool.name))
    if wanted is not None and wanted > there:
        raise ApiError(
            422,
            "too_many_engines",
            f"{pool.name} has {there} engine{'' if there == 1 else 's'}, {wanted} were asked for. Give it more in config/cluster.yaml "
            "(`engines`, or with `engines: auto` more GPUs, `emulated_engines` or `cpu_engines`), then `make up`.",
            "engines",
        )
    if not scaler.can_move(pool.name):
        raise ApiError(
            409,
            "cannot_scale",
            "The controller may not start or stop containers. Set controller.containers to true in config/cluster.yaml, then `make up`.",
        )


def _all_where_no_policy(scaler: Autoscaler, pool: Pool, wanted: int | None) -> int | None:
    """Without a policy nobody would start what rests, so that `null` means all of them from here on."""
    if wanted is None and scaler.pools[pool.name].scaling is None and scaler.pools[pool.name].fixed is not None:
        return len(scaler.fleet.members_of(pool.name))
    return wanted


def pool_scaling_response(scaler: Autoscaler, pool: Pool) -> PoolScalingResponse:
    """The pool's scaling, for people and programs."""
    state = scaler.pools[pool.name]
    engines = scaler.engines(pool.name)
    load = scaler.loads.get(pool.name)
    decision = scaler.decisions.get(pool.name)
    return PoolScalingResponse(
        pool=pool.name,
        policy=state.scaling.model_dump(mode="json") if state.scaling else None,
        wanted=state.wanted or None,
        fixed=state.fixed,
        started=sum(one.stage is not LifecycleStage.STOPPED for one in engines),
        serving=sum(one.stage is LifecycleStage.SERVING for one in engines),
        trouble=scaler.lifecycle.trouble.get(pool.name),
        load=None
        if load is None
        else {kind: getattr(load, kind) for kind in ("serving", "in_flight", "queue_time_s", "p95_s", "gpu")},
        decision=None if decision is None else _decided(decision),
        engines=[
            EngineStageResponse(
                name=one.name,
                stage=one.stage.value,
                state=scaler.fleet.members[one.name].health.shown.value,
                in_flight=one.in_flight,
            )
            for one in engines
        ],
        history=[_decided(one) for one in reversed(scaler.history[pool.name])],
    )


def _decided(decision: ScalingDecision) -> DecisionResponse:
    return DecisionResponse(
        at=datetime.fromtimestamp(decision.at_s, UTC).isoformat(timespec="seconds"),
        wanted=decision.wanted,
        reason=decision.reason.value,
        sentence=decision.sentence,
    )
