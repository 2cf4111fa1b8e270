"""Who may tell the controller about requests: the gateway, whose address changes, and no engine beside it."""

import asyncio
import socket

import pytest

from manyeyes.controller import metrics
from manyeyes.controller.telemetry import log_senders
from manyeyes.controller.telemetry.log_senders import MAX_HELD, MAX_HELD_ADDRESSES, LogSenders

GATEWAY, ENGINE = "10.213.77.130", "10.213.77.131"


class Names:
    """What the network's DNS answers for the gateway's name; None: it does not answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.addresses: list[str] | None = [GATEWAY]
        self.asked = 0
        monkeypatch.setattr(socket, "getaddrinfo", self.answer)

    def answer(self, host: str, port: object, *_: object, **__: object) -> list[object]:
        self.asked += 1
        if self.addresses is None:
            raise socket.gaierror(socket.EAI_AGAIN, host)
        return [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", (address, 0)) for address in self.addresses]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


def refused() -> float:
    return float(metrics.UNREADABLE._value.get())


async def test_the_gateways_lines_count_and_an_engines_do_not(names: Names) -> None:
    taken: list[bytes] = []
    senders = LogSenders("gateway.manyeyes_cluster", taken.append)
    before = refused()
    for _ in range(3):
        senders.receive(b"true", GATEWAY)
        senders.receive(b"invented", ENGINE)
    await senders.refresh()
    senders.receive(b"true", GATEWAY)
    assert taken == [b"true"] * 4
    assert refused() - before == 3


async def test_lines_of_a_gateway_with_a_new_address_wait_until_its_name_is_looked_up(names: Names) -> None:
    taken: list[bytes] = []
    senders = LogSenders("gateway", taken.append)
    await senders.refresh()
    names.addresses = ["10.213.77.140", "10.213.77.141"]
    senders.receive(b"first", "10.213.77.140")
    senders.receive(b"second", "10.213.77.141")
    assert taken == []
    await senders.refresh()
    assert taken == [b"first", b"second"]
    senders.receive(b"invented", GATEWAY)
    await senders.refresh()
    assert taken == [b"first", b"second"]


async def test_while_the_name_does_not_resolve_the_last_addresses_hold(names: Names) -> None:
    taken: list[bytes] = []
    senders = LogSenders("gateway", taken.append)
    await senders.refresh()
    names.addresses = None
    await senders.refresh()
    senders.receive(b"true", GATEWAY)
    senders.receive(b"invented", ENGINE)
    await senders.refresh()
    assert taken == [b"true"]


async def test_a_flood_of_invented_lines_takes_bounded_memory_and_no_place_of_the_gateways(names: Names) -> None:
    taken: list[bytes] = []
    senders = LogSenders("gateway", taken.append)
    before = refused()
    for number in range(10 * MAX_HELD):
        senders.receive(b"invented", ENGINE)
        senders.receive(b"invented", f"10.1.{number // 250}.{number % 250}")
    assert sum(map(len, senders._held.values())) <= MAX_HELD + MAX_HELD_ADDRESSES
    await senders.refresh()
    assert refused() - before == 20 * MAX_HELD
    senders.receive(b"true", GATEWAY)
    assert taken == [b"true"]


async def test_an_unknown_sender_causes_a_look_up_soon_but_no_storm(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_senders, "REFRESH_S", 3600.0)
    monkeypatch.setattr(log_senders, "MIN_PAUSE_S", 0.01)
    told = asyncio.Event()
    senders = LogSenders("gateway", lambda _: told.set())
    async with log_senders.watch_senders(senders), asyncio.timeout(30):
        senders.receive(b"true", GATEWAY)
        await told.wait()
        told.clear()
        names.addresses = ["10.213.77.140"]
        senders.receive(b"true", "10.213.77.140")
        await told.wait()
        asked = names.asked
        senders.receive(b"true", "10.213.77.140")
        await asyncio.sleep(0)
        assert names.asked == asked


async def test_without_a_name_every_address_is_believed() -> None:
    taken: list[bytes] = []
    LogSenders("", taken.append).receive(b"line", ENGINE)
    assert taken == [b"line"]
