"""Which measurements a run makes, and in which order. Nothing is done here."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.gateways.gateway import Gateway
from benchmarks.measurement import Job, Kind

NO_GATEWAY = "no gateway"


@dataclass(frozen=True)
class Wanted:
    """What the command line asks for."""

    kinds: tuple[str, ...]
    works: tuple[str, ...]
    engines: tuple[int, ...]
    headers: tuple[int, ...]
    repeats: int


def plan(wanted: Wanted, gateways: Sequence[Gateway]) -> list[Job]:
    """All jobs, in order: each repeat goes once through everything, starting with another gateway each time.

    The first number of engines gets all work; the others get chats and pictures. Gateways that are not their maker's
    first choice get chats and pictures on the first number of engines.
    """
    jobs: list[Job] = []
    for repeat in range(wanted.repeats):
        turned = [*gateways[repeat % len(gateways) :], *gateways[: repeat % len(gateways)]] if gateways else []
        if "work" in wanted.kinds:
            for engines in wanted.engines:
                jobs += _works(wanted, turned, engines, repeat)
        for kind in ("cpu", "latency", "stream"):
            if kind in wanted.kinds:
                jobs += _solo(kind, turned, wanted.engines[0], repeat)
    return jobs


def _works(wanted: Wanted, gateways: Sequence[Gateway], engines: int, repeat: int) -> Iterable[Job]:
    first = engines == wanted.engines[0]
    for work in wanted.works:
        common = work in ("chat", "images")
        if not (first or common):
            continue
        if repeat == 0:
            yield Job("best", NO_GATEWAY, engines, 0, work)
        for headers in wanted.headers:
            if headers and not (work == "chat" and first):
                continue
            for gateway in gateways:
                if headers <= len(gateway.headers) and (headers or gateway.leading or (first and common)):
                    yield Job("work", gateway.name, engines, repeat, work, headers)


def _solo(kind: Kind, gateways: Sequence[Gateway], engines: int, repeat: int) -> Iterable[Job]:
    for gateway in gateways:
        if gateway.leading and gateway.name != NO_GATEWAY:
            yield Job(kind, gateway.name, engines, repeat)
