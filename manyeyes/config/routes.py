"""`model: auto`: which pool a request goes to by what is in it."""

from pydantic import Field

from manyeyes.config.base import Name, Section

AUTO = "auto"
"""The name clients write to have the pool chosen."""


class Route(Section):
    """One rule. It fits when everything it names holds; the first that fits wins."""

    pool: Name
    """Where requests go that fit."""
    min_images: int = Field(0, ge=0)
    """Fits requests with at least so many pictures."""
    min_videos: int = Field(0, ge=0)
    """Fits requests with at least so many videos."""
    min_text_bytes: int = Field(0, ge=0)
    """Fits requests with at least so much text, all turns together."""
    reasoning_effort: tuple[str, ...] = ()
    """Fits requests that ask for one of these, such as [medium, high]."""
