"""Annotations mark a time span, such as a load test or a change, in the metrics and in the events.

Dashboards show an annotation as a span on every panel (manyeyes/monitoring/grafana/build.py), and reports show it next
to their charts. An annotation is one series while it is active, and two events.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from manyeyes.controller.membership.fleet import Fleet
from manyeyes.controller.metrics import ANNOTATION
from manyeyes.controller.registry.middleware import error_responses, not_found
from manyeyes.controller.registry.schemas import Removed, RequestModel
from manyeyes.openai_error import ApiError

MAX_ANNOTATIONS = 20
"""Maximum number of active annotations: each is a series in Prometheus, for as long as Prometheus stores samples."""
AnnotationText = Annotated[str, Field(min_length=1, max_length=120, pattern=r"^[^/\x00-\x1f\x7f]+$")]


class NewAnnotation(RequestModel):
    """A time span to mark."""

    text: AnnotationText
    """What happens, in a few words. It is also the annotation's name."""
    seconds: Annotated[float, Field(gt=0, le=86_400)] = 3600
    """The annotation ends automatically after this time."""


class Annotation(RequestModel):
    """An active annotation."""

    text: str
    until: datetime
    """When it ends automatically."""


class AnnotationRegistry:
    """The active annotations. They do not survive a restart of the controller."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._active: dict[str, tuple[Annotation, asyncio.TimerHandle]] = {}

    def begin(self, text: str, seconds: float) -> Annotation:
        """Starts an annotation, or prolongs an active one to `seconds` from now.

        Raises ApiError when there are too many.
        """
        if before := self._active.pop(text, None):
            before[1].cancel()
        elif len(self._active) >= MAX_ANNOTATIONS:
            active = ", ".join(self._active)
            raise ApiError(
                409,
                "too_many_annotations",
                f"There are already {MAX_ANNOTATIONS} annotations. End one of them first: {active}.",
            )
        else:
            self._fleet.emit_event(f"annotation started: {text}")
        ANNOTATION.labels(text).set(1)
        annotation = Annotation(text=text, until=datetime.now(UTC) + timedelta(seconds=seconds))
        self._active[text] = (annotation, asyncio.get_running_loop().call_later(seconds, self.end, text))
        return annotation

    def end(self, text: str) -> None:
        """Ends an annotation. Raises ApiError when there is none with this text."""
        if text not in self._active:
            raise not_found("annotation", text, list(self._active))
        self._active.pop(text)[1].cancel()
        ANNOTATION.remove(text)
        self._fleet.emit_event(f"annotation ended: {text}")

    def all(self) -> list[Annotation]:
        return [annotation for annotation, _ in self._active.values()]


def routes(fleet: Fleet) -> APIRouter:
    router = APIRouter(
        prefix="/api/annotations", tags=["annotations"], responses=error_responses(401, 403, 404, 409, 422)
    )
    registry = AnnotationRegistry(fleet)

    @router.get("")
    async def show() -> list[Annotation]:
        """Lists the active annotations."""
        return registry.all()

    @router.post("", status_code=201)
    async def begin(new: NewAnnotation) -> Annotation:
        """Starts an annotation, or prolongs the annotation with this text."""
        return registry.begin(new.text, new.seconds)

    @router.delete("/{text}")
    async def end(text: str) -> Removed:
        """Ends an annotation."""
        registry.end(text)
        return Removed(name=text)

    return router
