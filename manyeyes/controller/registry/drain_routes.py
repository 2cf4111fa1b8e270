"""Taking an engine out of rotation, and letting it in again. What it has in flight goes on."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from manyeyes.controller.membership.fleet import Fleet, Member
from manyeyes.controller.registry.errors import not_found, responses

DEFAULT_REASON = "by API"


class Reason(BaseModel):
    """Why, for the log and for colleagues."""

    model_config = {"extra": "forbid", "json_schema_extra": {"examples": [{"reason": "another driver for GPU 1"}]}}

    reason: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")] = DEFAULT_REASON


class Held(BaseModel):
    """One engine after a drain or a resume."""

    name: str
    state: str
    """`draining` while it is up and held back; any other state it is in by itself."""
    held: bool
    """Out of rotation on somebody's word."""
    in_flight: int | None
    """Requests it still works on. null: not known."""


def routes(fleet: Fleet) -> APIRouter:
    router = APIRouter(prefix="/api/engines", tags=["engines"], responses=responses(401, 403, 404, 422))

    @router.post("/{name}/drain")
    async def drain(name: str, why: Reason | None = None) -> Held:
        """Takes the engine out of rotation: it gets no new request, and finishes those it has. Twice is as good as once."""
        member = found(fleet, name)
        fleet.hold(name, (why or Reason()).reason)
        return _held(member)

    @router.post("/{name}/resume")
    async def resume(name: str, why: Reason | None = None) -> Held:
        """Lets a drained engine in again, as soon as it is up."""
        member = found(fleet, name)
        fleet.release(name, (why or Reason()).reason)
        return _held(member)

    return router


def found(fleet: Fleet, name: str) -> Member:
    """The engine of that name. Raises Refusal 404."""
    if member := fleet.members.get(name):
        return member
    raise not_found("engine", name, list(fleet.members))


def in_flight(member: Member) -> int | None:
    """Requests it works on, where they are counted."""
    value = getattr(getattr(member, "load", None), "in_flight", None)
    return int(value) if value is not None else None


def _held(member: Member) -> Held:
    return Held(
        name=member.engine.name,
        state=member.known.shown.value,
        held=member.known.held,
        in_flight=in_flight(member),
    )
