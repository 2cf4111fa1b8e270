"""The controller in this process: all its tasks, ports and files, beside two engines that listen and a gateway that reports its generation."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import yaml

from manyeyes.controller.__main__ import run
from manyeyes.controller.settings import ControllerSettings
from manyeyes.devcluster.ports import free_port
from tests.integration.raw_tcp_engine import raw_engine

KEY = "an-admin-key-of-a-test"
PATIENCE_S = 60.0


@dataclass
class LiveController:
    settings: ControllerSettings
    client: httpx.AsyncClient
    document: dict[str, object]
    """cluster.yaml."""

    async def call(self, method: str, path: str, body: object = None) -> httpx.Response:
        return await self.client.request(method, path, json=body)

    async def configuration(self, field: str) -> object:
        """One field of /api/configuration."""
        return (await self.call("GET", "/api/configuration")).json()[field]

    async def asks(self, wire: bytes) -> bytes:
        """The answer to a DNS query over UDP."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes] = loop.create_future()

        class Asks(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: object) -> None:
                if not answer.done():
                    answer.set_result(data)

        transport, _ = await loop.create_datagram_endpoint(
            Asks, remote_addr=(self.settings.internal_host, self.settings.dns_port)
        )
        try:
            transport.sendto(wire)
            return await asyncio.wait_for(answer, PATIENCE_S)
        finally:
            transport.close()

    def write(self, **sections: object) -> None:
        self.document |= sections
        self.settings.config.write_text(yaml.safe_dump(self.document))


@contextlib.contextmanager
def gateway(offered: Path) -> Iterator[str]:
    """Runs whatever generation it is offered."""

    class Reports(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            current = offered / "current"
            text = current.readlink().name if self.path == "/generation" and current.is_symlink() else ""
            self.send_response(200 if text else 404)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Reports)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.asynccontextmanager
async def live_controller(folder: Path, **sections: object) -> AsyncIterator[LiveController]:
    """Runs it until the end of the context, and fails when it ended before."""
    (folder / "secrets").mkdir()
    (folder / "secrets/admin.key").write_text(KEY)
    with raw_engine(0) as one, raw_engine(0) as other, gateway(folder / "offered") as gateway_url:
        settings = ControllerSettings(
            config=folder / "cluster.yaml",
            inventory=folder / "rendered/inventory.yaml",
            state=folder / "state",
            nginx_config_dir=folder / "offered",
            secrets=folder / "secrets",
            containers="http://127.0.0.1:9",
            **{  # type: ignore[arg-type]
                "MANYEYES_CONTROLLER_HOST": "127.0.0.1",
                "MANYEYES_GATEWAY_INTERNAL_URL": gateway_url,
                **{f"MANYEYES_CONTROLLER_{name}_PORT": free_port() for name in ("HTTP", "DNS", "SYSLOG")},
            },
        )
        document: dict[str, object] = {
            "pools": [{"name": "big", "model": "m"}, {"name": "far", "model": "f", "remote": {"url": "http://127.0.0.1:9/v1"}}],
            "engines": [
                {"name": f"e-{number}", "pool": "big", "flavour": "emulated", "address": f"127.0.0.1:{engine.port}"}
                for number, engine in enumerate((one, other))
            ],
            "controller": {"config_poll_interval_s": 0.1, "scaling_interval_s": 0.2, "probe_interval_s": 0.2, "register_loopback": True},
            **sections,
        }  # fmt: skip
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{settings.http_port}",
            headers={"Authorization": f"Bearer {KEY}"},
            trust_env=False,
            timeout=PATIENCE_S,
        ) as client:
            live = LiveController(settings, client, document)
            live.write()
            stop = asyncio.Event()
            task = asyncio.create_task(run(settings, stop))
            try:
                while True:
                    if task.done() or await _is_ready(client):
                        break
                    await asyncio.sleep(0.02)
                yield live
                assert not task.done(), "the controller has ended"
            finally:
                stop.set()
                await task


async def _is_ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/ready")).status_code == 200
    except httpx.TransportError:
        return False
