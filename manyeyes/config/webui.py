"""Settings of the page."""

from typing import Annotated

from pydantic import Field, StringConstraints

from manyeyes.config.base import Section


class AtOnce(Section):
    """How many visitors' events of one kind run at the same time in each copy of the page; the others wait in Gradio's queue.
    Kinds do not wait for one another. A running answer is one idle coroutine."""

    chat: int = Field(64, ge=1, le=1000)
    """Answers in the Chat tab."""
    documents: int = Field(16, ge=1, le=1000)
    """Batches in the Documents tab; each reads up to 32 pages at a time."""
    compare: int = Field(32, ge=1, le=1000)
    """Comparisons."""
    fallback: int = Field(32, ge=1, le=1000)
    """Runs in the Fallback tab."""
    individual: int = Field(32, ge=1, le=1000)
    """Runs in the Individual tab."""
    agent: int = Field(32, ge=1, le=1000)
    """Steps in the Agent tab."""
    programs: int = Field(64, ge=1, le=1000)
    """Calls by gradio_client, of each named endpoint."""


class WebUi(Section):
    """The page."""

    title: str = Field("ManyEyes", min_length=1, max_length=60)
    """Shown on top of the page and in the browser's tab."""
    greeting: str = Field(
        "Ask about pictures and videos. Drop them here, paste them, or try one of these.", max_length=400
    )
    """The line under the title."""
    users_file: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "users.yaml"
    """Who may open the page, with hashed passwords, beside this file; `manyeyes user NAME` adds one. While it does not exist nobody
    logs in."""
    login_h: float = Field(12, gt=0, le=24 * 90)
    """Hours until who logged in has to do it again."""
    copies: int = Field(1, ge=1, le=16)
    """Processes that serve the page, each with a core at most. A visit stays with its copy, by a cookie."""
    at_once: AtOnce = AtOnce()
    """Sizes of the page's queues."""
    threads: int = Field(32, ge=1, le=256)
    """Threads of each copy for reading pictures, videos and PDFs."""
    uploads_kept_h: float = Field(6, gt=0, le=24 * 7)
    """Hours after which an uploaded file is deleted in any case. Before that it goes with the chat or the visit that it belongs to."""
