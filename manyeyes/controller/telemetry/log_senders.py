"""Decides which addresses may send the gateway's request log.

Engines are in the same network. Without this check, an engine that was broken into could report failures of other
engines.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

from manyeyes.controller import metrics
from manyeyes.controller.supervision import keep_running

REFRESH_S = 5.0
"""Pause between two DNS queries for the gateway's name."""
MIN_PAUSE_S = 0.2
"""Minimum pause between two DNS queries."""
LOOKUP_TIMEOUT_S = 2.0
MAX_HELD = 200
"""Datagrams of one unknown address that wait for the next DNS query."""
MAX_HELD_ADDRESSES = 50


class LogSenders:
    """Passes datagrams of the gateway to `accept`. Without a name it passes all datagrams.

    Datagrams of an unknown address wait for the next DNS query, because a gateway that was just started has a new
    address.
    """

    def __init__(self, name: str, accept: Callable[[bytes], None]) -> None:
        self.name = name
        self.addresses: frozenset[str] = frozenset()
        self._accept = accept
        self._held: dict[str, list[bytes]] = {}
        self._wanted = asyncio.Event()

    def receive(self, datagram: bytes, address: str) -> None:
        if not self.name or address in self.addresses:
            self._accept(datagram)
        elif self._has_room(address):
            self._held.setdefault(address, []).append(datagram)
            self._wanted.set()
        else:
            metrics.UNREADABLE.inc()

    def _has_room(self, address: str) -> bool:
        held = self._held.get(address)
        return len(self._held) < MAX_HELD_ADDRESSES if held is None else len(held) < MAX_HELD

    async def refresh(self) -> None:
        """Resolves the name and checks the waiting datagrams. While the name does not resolve, the last addresses are
        valid."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT_S):
                entries = await loop.getaddrinfo(self.name, None, family=socket.AF_INET, type=socket.SOCK_DGRAM)
            self.addresses = frozenset(str(entry[4][0]) for entry in entries)
        except (OSError, UnicodeError, TimeoutError):
            pass
        held, self._held = self._held, {}
        for address, datagrams in held.items():
            for datagram in datagrams:
                if address in self.addresses:
                    self._accept(datagram)
                else:
                    metrics.UNREADABLE.inc()

    async def watch(self) -> None:
        while True:
            self._wanted.clear()
            await self.refresh()
            await asyncio.sleep(MIN_PAUSE_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), REFRESH_S)


@contextlib.asynccontextmanager
async def watch_senders(senders: LogSenders) -> AsyncIterator[None]:
    """Resolves the name repeatedly while the context lasts."""
    task = asyncio.create_task(keep_running("log_senders", senders.watch)) if senders.name else None
    try:
        yield
    finally:
        if task:
            task.cancel()
