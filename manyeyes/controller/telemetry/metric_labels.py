"""From what the gateway wrote to label values. Pure. Only what is configured gets a name, so that no client can make a series."""

from dataclasses import dataclass
from http import HTTPStatus

from manyeyes.controller.telemetry.access_log_parser import Attempt, Request

OTHER = "other"
NGINX_OWN = (444, 494, 495, 496, 497, 499)
"""Codes that only nginx writes; 499 is a client that left first."""
STATUSES = frozenset({*(int(status) for status in HTTPStatus), *NGINX_OWN})
CACHE = frozenset({"MISS", "BYPASS", "EXPIRED", "STALE", "UPDATING", "REVALIDATED", "HIT"})
MOST_KEYS = 500


@dataclass(frozen=True)
class Known:
    """What there is in the cluster."""

    pools: frozenset[str]
    pool_of: dict[str, str]
    """The pool of each engine, by the engine's name."""
    engine_at: dict[str, str]
    """An engine's name by host:port."""

    def pool(self, name: str) -> str:
        """A known pool's name, `other` for any other, empty for none."""
        return name if name in self.pools or not name else OTHER

    def asked(self, request: Request) -> str:
        """The pool that answered, or where none did, the one asked for."""
        return self.pool(request.pool or request.asked_pool)

    def engine(self, request: Request) -> str:
        """The engine that answered, or where none did, the last one asked; empty when no engine was asked."""
        if not request.attempts:
            return ""
        name = self.engine_at.get(request.attempts[-1].address, request.engine)
        return name if name in self.pool_of else OTHER

    def attempted(self, request: Request, attempt: Attempt) -> tuple[str, str]:
        """Pool and engine of one attempt. An address that is not an engine's (yet, or any more) counts for the request's pool."""
        engine = self.engine_at.get(attempt.address, OTHER)
        if engine in self.pool_of:
            return self.pool_of[engine], engine
        handed_on_to_another = attempt.handed_on and request.fallback
        return self.pool(request.fallback) if handed_on_to_another else self.asked(request), OTHER


def status(code: int) -> str:
    """The code as text; `other` for one that no standard knows."""
    return str(code) if code in STATUSES else OTHER


def status_class(code: int) -> str:
    """2xx, 4xx, ..."""
    return f"{code // 100}xx" if 100 <= code < 600 else OTHER


def cache(word: str) -> str:
    return word if word in CACHE or not word else OTHER


def key(name: str, seen: set[str]) -> str:
    """The name of a client's key. The gateway writes only names from its key file; the number of series stays bounded without that."""
    return name if name in seen or (len(seen) < MOST_KEYS and name.isascii() and name.isprintable()) else OTHER
