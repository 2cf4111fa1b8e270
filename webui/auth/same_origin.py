"""Restricts the page to its own origin: a content security policy, and refusal of cross-origin requests.

Without the policy, an image in an answer's Markdown would make the user's browser send a request to an unknown server.
Gradio needs inline scripts and styles, and `new Function` for the scripts of its events.

A page of another origin may only link to this page. Gradio alone would let any origin call every event and read the
response. Browsers report the source of a request in Sec-Fetch-Site (over TLS and on localhost only) and in Origin;
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
"""Values of Sec-Fetch-Site for scripts of this page, and for typed addresses and bookmarks."""
PORTS = {"http": 80, "https": 443}
LINKABLE_PATHS = {linkable for path in PATHS.values() for linkable in (path, path.rstrip("/"), f"{path}login")}
"""Paths that a link on another site may lead to."""
FOREIGN_ORIGIN_MESSAGE = (
    "This request comes from a page of another origin. ManyEyes accepts requests from its own page only. "
    "Open ManyEyes at its own address. A proxy in front of it must forward the Host header with its port.\n"
)


class SameOriginMiddleware:
    """ASGI middleware that adds headers. It does not buffer bodies, so that streaming works."""

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
                    del headers[name]  # Gradio sets them to allow every origin
                headers["content-security-policy"] = POLICY
                # Not "no-referrer": it makes browsers send `Origin: null` with the login form.
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
    """Returns True if a page of another origin sent this request and the request does more than open the page."""
    headers = Headers(scope=scope)
    if sites := headers.getlist("sec-fetch-site"):
        return any(site not in OWN_SITES for site in sites) and not _opens_the_page(scope, headers)
    own = _own_hosts(headers)
    outside = any(not any(_is_same(origin, host) for host in own) for origin in headers.getlist("origin"))
    return outside and not _opens_the_page(scope, headers)


def _own_hosts(headers: Headers) -> list[str]:
    """Returns the hosts of this page as sent by the browser or a proxy. Scripts of other origins cannot set them."""
    names = [*headers.getlist("host"), *headers.getlist("x-forwarded-host")]
    hosts = [host.strip() for name in names for host in name.split(",")]
    port = headers.get("x-forwarded-port", "").strip()
    return hosts + [f"{host}:{port}" for host in hosts if port and not host.rpartition("]")[2].count(":")]


def _opens_the_page(scope: Scope, headers: Headers) -> bool:
    """Returns True for a link on another site. Without access-control headers, that site cannot read the response."""
    return (
        scope.get("method") in ("GET", "HEAD")
        and scope["path"] in LINKABLE_PATHS
        and headers.get("sec-fetch-mode", "navigate") == "navigate"
        and headers.get("sec-fetch-dest", "document") == "document"
    )


def _is_same(origin: str, host: str) -> bool:
    """Compares host and port only, because a proxy may terminate TLS. `null` and invalid origins never match."""
    try:
        origin_parts, own = urlsplit(origin.strip()), urlsplit(f"//{host.strip()}")
        standard = PORTS[origin_parts.scheme]
        return bool(own.hostname) and (origin_parts.hostname, origin_parts.port or standard) == (
            own.hostname,
            own.port or standard,
        )
    except (KeyError, ValueError):
        return False


MAX_DISCARDED_BYTES = 1 << 20
"""How much of a refused request body is read. With a longer body, the connection closes."""


async def discard_body(scope: Scope, receive: Receive) -> None:
    """Reads and discards up to 1 MiB of the request body, so that the connection stays usable after a refusal."""
    read, more = 0, scope["type"] == "http"
    while more and read < MAX_DISCARDED_BYTES:
        message = await receive()
        read += len(message.get("body", b""))
        more = message.get("more_body", False)
