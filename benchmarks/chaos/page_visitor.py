"""Somebody who opens the page again and again, so that it has something to do."""

import base64
import contextlib
import threading
import urllib.request
from dataclasses import dataclass, field

from loadtest.gateway_client import GatewayClient

EVERY_S = 0.5
TIMEOUT_S = 10.0


@dataclass
class Visitor:
    gateway: GatewayClient
    opened: int = 0
    failed: int = 0
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        if self._thread:
            self._thread.join(timeout=2 * TIMEOUT_S)

    def _run(self) -> None:
        name = base64.b64encode(f"visitor:{self.gateway.key}".encode()).decode()
        headers = {"Authorization": f"Basic {name}"} if self.gateway.key else {}
        opener = self.gateway.opener()
        while not self._over.wait(EVERY_S):
            self.failed += 1
            with contextlib.suppress(OSError):
                request = urllib.request.Request(f"{self.gateway.base}/", headers=headers)
                with opener.open(request, timeout=TIMEOUT_S) as reply:
                    reply.read()
                self.opened += 1
                self.failed -= 1
