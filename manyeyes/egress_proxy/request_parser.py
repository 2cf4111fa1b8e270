"""The head of a request to a proxy, as vLLM's HTTP clients send it."""

from dataclasses import dataclass
from urllib.parse import urlsplit


class Unreadable(Exception):
    """Not a request that a proxy takes; one sentence."""


@dataclass(frozen=True)
class Request:
    """`head` is what the origin gets; empty for CONNECT, where the client and the origin speak TLS themselves."""

    host: str
    port: int
    head: bytes


def read(head: bytes) -> Request:
    """Raises Unreadable."""
    try:
        line, _, rest = head.decode("ascii").partition("\r\n")
        method, target, version = line.split(" ")
    except ValueError:
        raise Unreadable("the request line is not one of HTTP") from None
    if method == "CONNECT":
        host, colon, port = target.rpartition(":")
        if not colon or not port.isdigit() or len(port) > 5:
            raise Unreadable("CONNECT wants host:port")
        return Request(host.strip("[]"), _port(int(port)), b"")
    if method not in ("GET", "HEAD"):
        raise Unreadable(f"{method[:10]} fetches nothing")
    try:
        parts = urlsplit(target)
        host, wanted = parts.hostname or "", parts.port or 80
    except ValueError:
        raise Unreadable("the URL cannot be read") from None
    if parts.scheme != "http" or not host or parts.username is not None:
        raise Unreadable("the URL wants to be http://host/...")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    # One request for each connection, so that the second one cannot name another host unseen.
    dropped = ("connection:", "proxy-", "host:", "keep-alive:", "transfer-encoding:", "content-length:", "upgrade:")
    kept = [field for field in rest.split("\r\n") if field and not field.lower().startswith(dropped)]
    lines = [f"{method} {path} {version}", f"Host: {parts.netloc}", *kept, "Connection: close", "", ""]
    return Request(host, _port(wanted), "\r\n".join(lines).encode())


def _port(number: int) -> int:
    if not 1 <= number <= 65_535:
        raise Unreadable(f"{number} is no port")
    return number
