"""Closes every route of Gradio that this page does not use.

Gradio also serves an older form of file URLs, a proxy, descriptions of its API, a development server and pages of its
own. A list of open routes stays correct when a new version of Gradio adds a route.
"""

import re

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from webui.auth.same_origin import discard_body
from webui.i18n import PATHS

NAME = r"[^/]+"
OPEN_ROUTES = {
    "GET": (
        r"/?", "/login", "/logout", "/config/?", r"/theme\.css", r"/favicon\.ico", r"/robots\.txt", r"/manifest\.json",
        "/static/.+", "/assets/.+", "/gradio_api/info", "/gradio_api/app_id", "/gradio_api/startup-events",
        r"/gradio_api/theme\.css", "/gradio_api/file=/.+", "/gradio_api/upload_progress", "/gradio_api/queue/data",
        f"/gradio_api/heartbeat/{NAME}", f"/gradio_api/call/{NAME}/{NAME}",
    ),
    "POST": (
        "/login", "/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/cancel", "/gradio_api/reset",
        f"/gradio_api/run/{NAME}", f"/gradio_api/call/{NAME}",
    ),
}  # fmt: skip
"""Routes that the page's script and gradio_client use, by method, as regular expressions. HEAD is as GET."""
PREFIXES = "|".join(sorted({re.escape(path.rstrip("/")) for path in PATHS.values()}, reverse=True))
_OPEN = {method: re.compile(f"(?:{PREFIXES})(?:{'|'.join(routes)})") for method, routes in OPEN_ROUTES.items()}


class AllowedRoutesMiddleware:
    """ASGI middleware that answers 404 for every other route, and closes websockets, which the page does not use."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and is_open(scope["method"], scope["path"])):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await discard_body(scope, receive)
            await PlainTextResponse("This page has no such address, or not for this method.\n", 404)(
                scope, receive, send
            )


def is_open(method: str, path: str) -> bool:
    pattern = _OPEN.get("GET" if method == "HEAD" else method)
    return bool(pattern and pattern.fullmatch(path))
