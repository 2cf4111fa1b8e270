"""Marks: a time that somebody wants to find again, such as a load test or a change. A series while it lasts, and two events.

Dashboards show it as a span on every panel (manyeyes/monitoring/grafana/build.py), the report beside its charts.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from manyeyes.controller.membership.fleet import Fleet
from manyeyes.controller.metrics import MARK
from manyeyes.controller.registry.middleware import error_responses, not_found
from manyeyes.controller.registry.schemas import Removed, RequestModel
from manyeyes.openai_error import ApiError

MOST = 20
"""At a time: each is a series in Prometheus for as long as that keeps samples."""
AnnotationText = Annotated[str, Field(min_length=1, max_length=120, pattern=r"^[^/\x00-\x1f\x7f]+$")]


class NewAnnotation(RequestModel):
    """A time to find again."""

    text: AnnotationText
    """What is going on, in a few words. It is the mark's name."""
    seconds: Annotated[float, Field(gt=0, le=86_400)] = 3600
    """It ends by itself then, should nobody end it before."""


class Annotation(RequestModel):
    """A mark that lasts."""

    text: str
    until: datetime
    """When it ends by itself."""


class AnnotationRegistry:
    """Those that last. They are not kept over a restart of the controller."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._ends: dict[str, tuple[Annotation, asyncio.TimerHandle]] = {}

    def begin(self, text: str, seconds: float) -> Annotation:
        """Begins it, or lets one that lasts go on for so long from here. Raises ApiError when there are too many."""
        if before := self._ends.pop(text, None):
            before[1].cancel()
        elif len(self._ends) >= MOST:
            raise ApiError(409, "too_many_marks", f"There are {MOST} marks already; end one: {', '.join(self._ends)}.")
        else:
            self._fleet.emit_event(f"began: {text}")
        MARK.labels(text).set(1)
        mark = Annotation(text=text, until=datetime.now(UTC) + timedelta(seconds=seconds))
        self._ends[text] = (mark, asyncio.get_running_loop().call_later(seconds, self.end, text))
        return mark

    def end(self, text: str) -> None:
        """Raises ApiError when there is none of that name."""
        if text not in self._ends:
            raise not_found("mark", text, list(self._ends))
        self._ends.pop(text)[1].cancel()
        MARK.remove(text)
        self._fleet.emit_event(f"ended: {text}")

    def all(self) -> list[Annotation]:
        return [mark for mark, _ in self._ends.values()]


def routes(fleet: Fleet) -> APIRouter:
    router = APIRouter(
        prefix="/api/annotations", tags=["annotations"], responses=error_responses(401, 403, 404, 409, 422)
    )
    marks = AnnotationRegistry(fleet)

    @router.get("")
    async def show() -> list[Annotation]:
        """The marks that last."""
        return marks.all()

    @router.post("", status_code=201)
    async def begin(new: NewAnnotation) -> Annotation:
        """Begins a mark, or prolongs the one of this name."""
        return marks.begin(new.text, new.seconds)

    @router.delete("/{text}")
    async def end(text: str) -> Removed:
        """Ends a mark."""
        marks.end(text)
        return Removed(name=text)

    return router
