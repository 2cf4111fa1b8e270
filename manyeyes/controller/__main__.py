"""`python -m manyeyes.controller`: monitors the engines, serves DNS and HTTP, exits on SIGTERM."""

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

from manyeyes.controller import api, metrics
from manyeyes.controller.api import create_app
from manyeyes.controller.autoscaling import api as scaling_api
from manyeyes.controller.autoscaling.autoscaler import run_autoscaler
from manyeyes.controller.config_sync.config_files import InvalidConfiguration
from manyeyes.controller.config_sync.config_watcher import ConfigWatcher
from manyeyes.controller.config_sync.effective_config import EffectiveConfig
from manyeyes.controller.config_sync.nginx_publisher import GenerationStore, NginxPublisher, ReadOnlyPublisher
from manyeyes.controller.disk_writer import DiskWriter
from manyeyes.controller.membership import dns, pool_renames
from manyeyes.controller.membership.fleet import FLUSH_TIMEOUT_S, Fleet
from manyeyes.controller.membership.service_discovery import ServiceDiscovery
from manyeyes.controller.registry import registrations
from manyeyes.controller.registry.app import BEARER, mount_registry
from manyeyes.controller.registry.registrations import AdapterConfigWriter
from manyeyes.controller.settings import ControllerSettings
from manyeyes.controller.state_store import StateStore
from manyeyes.controller.supervision import keep_running
from manyeyes.controller.telemetry import access_log_receiver
from manyeyes.controller.telemetry.access_log_receiver import AccessLog
from manyeyes.controller.telemetry.container_stats import collect_container_stats
from manyeyes.observability import structlog_setup


class QuietServer(uvicorn.Server):
    """Uvicorn without signal handling: it raises the signal again after shutdown, so a clean exit looks like a kill."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class ListenError(Exception):
    """A port cannot be opened. The message names the port, the reason and what to do."""


def _bound(host: str, port: int) -> socket.socket:
    """Binds a TCP socket. Raises ListenError."""
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise _cannot_listen("HTTP", host, port, error) from error
    return listening


def _cannot_listen(protocol: str, host: str, port: int, error: OSError) -> ListenError:
    return ListenError(
        f"The controller cannot listen for {protocol} on {host} port {port}: {error.strerror or error}. "
        "Stop the process that uses this port, or configure another port for the controller."
    )


@contextlib.asynccontextmanager
async def _or_cannot_listen(
    protocol: str, host: str, port: int, opened: contextlib.AbstractAsyncContextManager[None]
) -> AsyncIterator[None]:
    """Enters `opened`. Raises ListenError when that fails with OSError."""
    async with contextlib.AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(opened)
        except OSError as error:
            raise _cannot_listen(protocol, host, port, error) from error
        yield


async def run(settings: ControllerSettings, stop: asyncio.Event) -> None:
    """Runs the controller until `stop` is set. Raises InvalidConfiguration or ListenError."""
    state_store = StateStore(settings.state)
    configuration = ConfigWatcher(settings.config, settings.inventory, state_store)
    registered, left_out = registrations.load_registrations(state_store, configuration.plan.cluster)
    effective = EffectiveConfig(configuration.plan.cluster, registered)
    cluster = effective.cluster
    fleet = Fleet(cluster, state_store)
    effective.listen(fleet.apply)
    kind = ReadOnlyPublisher if settings.services else NginxPublisher
    gateway = kind(GenerationStore(settings.nginx_config_dir), settings.nginx_paths, settings.gateway, fleet.emit_event)
    # For engines that Compose started, the names in their command line win: they are known before the engine is up.
    gateway.naming = lambda cluster: pool_renames.pool_naming(
        cluster, fleet.lineage, {**fleet.accepted, **configuration.plan.accepted}
    )
    fleet.accepts_changed = gateway.apply_again
    effective.listen(gateway.apply)
    adapter_book = AdapterConfigWriter(state_store)
    adapter_book.write(cluster)
    effective.listen(adapter_book.write)
    for sentence in left_out:
        fleet.emit_event(sentence)
    configuration.start(effective, gateway, fleet.emit_event)
    requests = AccessLog(fleet)
    effective.listen(requests.apply)
    app = create_app(fleet, requests, lambda: metrics.record_certificate(effective.cluster, settings.secrets))
    app.include_router(api.configuration_router(configuration))
    mount_registry(app, fleet, effective, state_store, settings)
    state_store.writer = DiskWriter()  # from here on the event loop answers DNS
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
    async with (
        _or_cannot_listen(
            "DNS",
            settings.internal_host,
            settings.dns_port,
            dns.serve_dns(fleet, settings.internal_host, settings.dns_port),
        ),
        _or_cannot_listen(
            "the gateway's log",
            settings.internal_host,
            settings.syslog_port,
            access_log_receiver.receive_access_log(
                requests, settings.internal_host, settings.syslog_port, settings.log_senders
            ),
        ),
        collect_container_stats(effective, settings.containers),
        run_autoscaler(fleet, effective, requests, state_store, settings.containers, settings.state / "load") as scaler,
    ):
        app.include_router(scaling_api.routes(scaler), dependencies=[Security(BEARER)])
        tasks = {
            "engines": fleet.watch,
            "gateway": gateway.follow,
            "configuration": configuration.watch,
            "spans": requests.spans.run,
        }
        if settings.services:
            tasks["services"] = ServiceDiscovery(settings.services, settings.resolver, effective, fleet.emit_event).run
        loops = [asyncio.create_task(keep_running(name, each)) for name, each in tasks.items()]
        structlog.get_logger().info(
            "controller_started", engines=list(fleet.members), pools=[p.name for p in cluster.served_pools]
        )
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        stopping = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait({*loops, serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for each in (*loops, stopping):
            each.cancel()
        server.should_exit = True
        await serving
        await state_store.flush(FLUSH_TIMEOUT_S)
        for task in done:
            task.result()


async def run_until_signal() -> None:
    """Runs the controller until SIGTERM or SIGINT. Raises InvalidConfiguration or ListenError."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await run(ControllerSettings(), stop)


def main() -> int:
    structlog_setup.configure_structlog("controller")
    try:
        uvloop.run(run_until_signal())
    except InvalidConfiguration as error:
        print(error, file=sys.stderr)
        return 2
    except ListenError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
