"""Keeps every request of the page on its own origin, and refuses requests that pages of another origin make.

A picture in an answer's Markdown would otherwise make the reader's browser ask a stranger's server.
Gradio needs inline scripts and styles, and `new Function` for the scripts of its events.

A page of another origin may open this one by a link, and do nothing else: Gradio by itself lets any origin call every event and
read the answer. A browser says where a request comes from in Sec-Fetch-Site (over TLS and on localhost only) and in Origin;
programs send neither.
"""

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from webui.i18n import PATHS

POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    )
)
OWN_SITES = ("same-origin", "none")
"""Of Sec-Fetch-Site: this page's own scripts, and what a person typed or chose from the bookmarks."""
PORTS = {"http": 80, "https": 443}
LINKABLE_PATHS = {linkable for path in PATHS.values() for linkable in (path, path.rstrip("/"), f"{path}login")}
"""Paths that a link on another site may lead to."""
FOREIGN_ORIGIN_MESSAGE = (
    "This request comes from a page of another origin, and ManyEyes answers its own page only. "
    "Open ManyEyes by its own address. A proxy before it has to pass on the Host header with its port.\n"
)


class SameOriginMiddleware:
    """ASGI middleware; adds headers and touches no body, so that streams stay streams."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        foreign = is_foreign(scope)

        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name in {name for name in headers if name.startswith("access-control-")}:
                    del headers[name]  # Gradio's own: it allows every origin
                headers["content-security-policy"] = POLICY
                # Not "no-referrer": with it browsers send `Origin: null` with the login's own form.
                headers["referrer-policy"] = "same-origin"
                headers["x-content-type-options"] = "nosniff"
            await send(message)

        if foreign and scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif foreign:
            await discard_body(scope, receive)
            await PlainTextResponse(FOREIGN_ORIGIN_MESSAGE, 403)(scope, receive, with_policy)
        else:
            await self._app(scope, receive, with_policy)


def is_foreign(scope: Scope) -> bool:
    """Whether a page of another origin makes this request, and it does more than open the page."""
    headers = Headers(scope=scope)
    if sites := headers.getlist("sec-fetch-site"):
        return any(site not in OWN_SITES for site in sites) and not _opens_the_page(scope, headers)
    own = _own_hosts(headers)
    outside = any(not any(_is_same(origin, host) for host in own) for origin in headers.getlist("origin"))
    return outside and not _opens_the_page(scope, headers)


def _own_hosts(headers: Headers) -> list[str]:
    """The names of this page, as the browser or a proxy says them. No script of another origin can set any of these headers."""
    names = [*headers.getlist("host"), *headers.getlist("x-forwarded-host")]
    hosts = [host.strip() for name in names for host in name.split(",")]
    port = headers.get("x-forwarded-port", "").strip()
    return hosts + [f"{host}:{port}" for host in hosts if port and not host.rpartition("]")[2].count(":")]


def _opens_the_page(scope: Scope, headers: Headers) -> bool:
    """A link on another site, in a window of its own. Without access-control headers a script of that site reads nothing of it."""
    return (
        scope.get("method") in ("GET", "HEAD")
        and scope["path"] in LINKABLE_PATHS
        and headers.get("sec-fetch-mode", "navigate") == "navigate"
        and headers.get("sec-fetch-dest", "document") == "document"
    )


def _is_same(origin: str, host: str) -> bool:
    """Host and port alone: TLS may end at a proxy before this page. `null` and what is no origin are the same as nothing."""
    try:
        theirs, own = urlsplit(origin.strip()), urlsplit(f"//{host.strip()}")
        standard = PORTS[theirs.scheme]
        return bool(own.hostname) and (theirs.hostname, theirs.port or standard) == (own.hostname, own.port or standard)
    except (KeyError, ValueError):
        return False


MAX_DISCARDED_BYTES = 1 << 20
"""Of a body that nobody wants; a longer one costs its sender the connection."""


async def discard_body(scope: Scope, receive: Receive) -> None:
    """Reads and drops a request's body, or its first MiB, so that a refusal leaves the connection usable."""
    read, more = 0, scope["type"] == "http"
    while more and read < MAX_DISCARDED_BYTES:
        message = await receive()
        read += len(message.get("body", b""))
        more = message.get("more_body", False)
