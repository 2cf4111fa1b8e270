"""The page's two languages. The English words stand in the code; chinese.py has the Chinese of each.

Gradio's own `gr.I18n` translates labels only, by the browser's language only; most of what this page says is made while an
answer comes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from webui.i18n.chinese import CHINESE

ENGLISH, ZH = "en", "zh"
NAMES = {ENGLISH: "English", ZH: "中文"}
_spoken: ContextVar[str] = ContextVar("language", default=ENGLISH)


def set_language(language: str) -> None:
    """From here on, in this task and in those it starts."""
    _spoken.set(language)


@contextmanager
def use_language(language: str) -> Iterator[None]:
    token = _spoken.set(language)
    try:
        yield
    finally:
        _spoken.reset(token)


def current_language() -> str:
    return _spoken.get()


def say(english: str, /, **values: object) -> str:
    """`english` in the language of the visit, with `values` in place of the names in braces.

    What is no text of the page (a greeting from cluster.yaml, an engine's own words) stays as it is.
    """
    found = CHINESE.get(english, english) if _spoken.get() == ZH else english
    return found.format(**values) if values else found


def counted(count: int, one: str, many: str) -> str:
    """`one` or `many`, with {count} in it."""
    return say(one if count == 1 else many, count=count)


def later(english: str) -> str:
    """Marks a text that is said later, where its language is known."""
    return english


def negotiate_language(cookie: str | None, accept_language: str) -> str:
    """The language of a visitor: what was chosen on the page, else the first of the browser's that there is."""
    if cookie in NAMES:
        return str(cookie)
    for part in accept_language.split(","):
        name = part.partition(";")[0].strip().partition("-")[0].lower()
        if name in NAMES:
            return name
    return ENGLISH
