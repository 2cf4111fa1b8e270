"""Refuses requests under a host name that may be a stranger's (DNS rebinding).

A web site whose own name leads to this page's address is of the page's origin for the browser. IP addresses, localhost,
names of one word and names under suffixes that cannot be registered always lead to this network; other names must be in
`webui.host_names`. Visitors who sent an API key or must log in are not asked: a stranger's name has neither their key
nor their cookie.
"""

import re
from collections.abc import Callable, Collection
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from manyeyes.netpolicy import PRIVATE_SUFFIXES
from webui.auth.same_origin import discard_body
from webui.cluster.gateway_client import KEY_HEADER

HOST = re.compile(r"(?:\[(?P<v6>[0-9a-f:.%a-z]+)\]|(?P<name>[a-z0-9_.-]*[a-z0-9_-]\.?))(?::[0-9]*)?")
MESSAGE = (
    "The page is not served under the name {host}. Open it by its IP address, or add the name to webui.host_names in "
    "cluster.yaml.\n"
)


class OwnHostMiddleware:
    def __init__(self, app: ASGIApp, host_names: Callable[[], Collection[str]], has_login: Callable[[], bool]) -> None:
        """`host_names`: the operator's names. `has_login`: whether every visitor must log in."""
        self._app = app
        self._host_names = host_names
        self._has_login = has_login

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        strange = next((host for host in hosts if not is_own_host(host, self._host_names())), None)
        if strange is None or headers.get(KEY_HEADER) or self._has_login():
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await discard_body(scope, receive)
            message = MESSAGE.format(host=ascii(strange)[1:-1][:100])
            await PlainTextResponse(message, 403)(scope, receive, send)


def is_own_host(host: str, host_names: Collection[str] = ()) -> bool:
    """Returns True if no stranger can own the name of this Host header. Without a name, no browser sent it."""
    if not host:
        return True
    parts = HOST.fullmatch(host.lower())
    if parts is None:
        return False
    name = (parts["v6"] or parts["name"]).rstrip(".")
    try:
        ip_address(name.partition("%")[0])
        return True
    except ValueError:
        is_private = "." not in name or name.endswith(tuple(f".{suffix}" for suffix in PRIVATE_SUFFIXES))
        return not parts["v6"] and (is_private or name in host_names)
