"""`python -m manyeyes.controller`: watches the engines, answers DNS and HTTP, ends on SIGTERM."""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator

import structlog
import uvicorn
import uvloop
from fastapi import Security

from manyeyes.controller.api import api
from manyeyes.controller.autoscaling import api as scaling_api
from manyeyes.controller.autoscaling.service import scaling
from manyeyes.controller.config_sync import config_api, pool_renames
from manyeyes.controller.config_sync.config_generations import Offered
from manyeyes.controller.config_sync.config_watcher import Configuration, Unusable
from manyeyes.controller.config_sync.effective_config import InForce
from manyeyes.controller.config_sync.nginx_publisher import FilesOfOthers, GatewayFiles
from manyeyes.controller.membership import dns
from manyeyes.controller.membership.fleet import Fleet
from manyeyes.controller.membership.service_discovery import Services
from manyeyes.controller.registry import registrations
from manyeyes.controller.registry.adapter_config_writer import AdapterBook
from manyeyes.controller.registry.app import BEARER, mount
from manyeyes.controller.settings import Settings
from manyeyes.controller.state_store import Kept
from manyeyes.controller.supervision import keep_running
from manyeyes.controller.telemetry import access_log_receiver, certificate
from manyeyes.controller.telemetry.access_log_receiver import RequestLog
from manyeyes.controller.telemetry.container_stats import watching_containers
from manyeyes.observability import structlog_setup


class QuietServer(uvicorn.Server):
    """uvicorn raises a signal it was ended by once more, which would make an orderly end look like a kill."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class CannotListen(Exception):
    """The message says where, why and what to do."""


def _bound(host: str, port: int) -> socket.socket:
    """Raises CannotListen."""
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise _cannot_listen("HTTP", host, port, error) from error
    return listening


def _cannot_listen(what: str, host: str, port: int, error: OSError) -> CannotListen:
    return CannotListen(
        f"The controller cannot listen for {what} on {host} port {port}: {error.strerror or error}. "
        "End what listens there, or give the controller another port."
    )


@contextlib.asynccontextmanager
async def _or_cannot_listen(
    what: str, host: str, port: int, opened: contextlib.AbstractAsyncContextManager[None]
) -> AsyncIterator[None]:
    """Raises CannotListen where `opened` cannot be entered."""
    async with contextlib.AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(opened)
        except OSError as error:
            raise _cannot_listen(what, host, port, error) from error
        yield


async def run(settings: Settings) -> None:
    """Until uvicorn is told to stop."""
    kept = Kept(settings.state)
    configuration = Configuration(settings.config, settings.inventory, kept)
    registered, left_out = registrations.read(kept, configuration.reach.cluster)
    in_force = InForce(configuration.reach.cluster, registered)
    cluster = in_force.cluster
    fleet = Fleet(cluster, kept)
    in_force.listen(fleet.apply)
    kind = FilesOfOthers if settings.services else GatewayFiles
    gateway = kind(Offered(settings.offered), settings.places, settings.gateway, fleet.tell)
    # What was written down when engines were started is there before they accept it; what others say of themselves counts otherwise.
    gateway.naming = lambda cluster: pool_renames.naming(
        cluster, fleet.lineage, {**fleet.accepted, **configuration.reach.accepted}
    )
    fleet.accepts_changed = gateway.apply_again
    in_force.listen(gateway.apply)
    adapter_book = AdapterBook(kept)
    adapter_book.write(cluster)
    in_force.listen(adapter_book.write)
    for sentence in left_out:
        fleet.tell(sentence)
    configuration.begin(in_force, gateway, fleet.tell)
    requests = RequestLog(fleet)
    in_force.listen(requests.apply)
    app = api(fleet, requests, lambda: certificate.tell(in_force.cluster, settings.secrets))
    app.include_router(config_api.router(configuration))
    mount(app, fleet, in_force, kept, settings)
    listening = _bound(settings.host, settings.http_port)
    server = QuietServer(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.http_port,
            log_config=None,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=2,
        )
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: setattr(server, "should_exit", True))
    async with (
        _or_cannot_listen(
            "DNS", settings.closed_host, settings.dns_port, dns.serving(fleet, settings.closed_host, settings.dns_port)
        ),
        _or_cannot_listen(
            "the gateway's log",
            settings.closed_host,
            settings.syslog_port,
            access_log_receiver.receiving(requests, settings.closed_host, settings.syslog_port),
        ),
        watching_containers(in_force, settings.containers),
        scaling(fleet, in_force, requests, kept, settings.containers, settings.state / "load") as scaler,
    ):
        app.include_router(scaling_api.routes(scaler), dependencies=[Security(BEARER)])
        tasks = {
            "engines": fleet.watch,
            "gateway": gateway.follow,
            "configuration": configuration.watch,
            "spans": requests.spans.run,
        }
        if settings.services:
            tasks["services"] = Services(settings.services, settings.resolver, in_force, fleet.tell).follow
        loops = [asyncio.create_task(keep_running(name, each)) for name, each in tasks.items()]
        structlog.get_logger().info(
            "controller_started", engines=list(fleet.members), pools=[p.name for p in cluster.served_pools]
        )
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        done, _ = await asyncio.wait({*loops, serving}, return_when=asyncio.FIRST_COMPLETED)
        for each in loops:
            each.cancel()
        server.should_exit = True
        await serving
        for task in done:
            task.result()


def main() -> int:
    structlog_setup.configure_structlog("controller")
    try:
        uvloop.run(run(Settings.from_environment()))
    except Unusable as error:
        print(error, file=sys.stderr)
        return 2
    except CannotListen as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
