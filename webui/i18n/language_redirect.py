"""Sends a visitor who opens / to the page in their language: the one chosen on the page, else the browser's."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from webui.i18n.translations import ENGLISH, NAMES

LANGUAGE_COOKIE = "manyeyes-language"


class LanguageRedirect:
    """ASGI middleware. Programs ask for no language and get English."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/" and scope["method"] == "GET":
            language = requested_language(Request(scope))
            if language != ENGLISH:
                # Relative, because the address that the visitor knows may have another port or scheme.
                answer = RedirectResponse(f"{language}/", 303, {"Vary": "Cookie, Accept-Language"})
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


def requested_language(request: Request) -> str:
    return negotiate_language(request.cookies.get(LANGUAGE_COOKIE), request.headers.get("accept-language", ""))


def negotiate_language(cookie: str | None, accept_language: str) -> str:
    """The language of a visitor: what was chosen on the page, else the first of the browser's that there is."""
    if cookie in NAMES:
        return str(cookie)
    for part in accept_language.split(","):
        name = part.partition(";")[0].strip().partition("-")[0].lower()
        if name in NAMES:
            return name
    return ENGLISH
