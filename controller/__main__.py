"""`python -m controller`: watches the engines, answers DNS and HTTP, ends on SIGTERM."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Iterator

import structlog
import uvicorn
import uvloop
from fastapi import Security

from controller import certificate, configuration_api, dns, request_log
from controller.api import api
from controller.configuration import Configuration, Unusable
from controller.container_use import watching_containers
from controller.fleet import Fleet
from controller.gateway_files import FilesOfOthers, GatewayFiles
from controller.in_force import InForce
from controller.kept import Kept
from controller.offered import Offered
from controller.registry import registrations
from controller.registry.adapter_book import AdapterBook
from controller.registry.mount import BEARER, mount
from controller.request_log import RequestLog
from controller.scaling import api as scaling_api
from controller.scaling.running import scaling
from controller.services import Services
from controller.settings import Settings
from logs import events


class QuietServer(uvicorn.Server):
    """uvicorn raises a signal it was ended by once more, which would make an orderly end look like a kill."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
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
    app.include_router(configuration_api.router(configuration))
    mount(app, fleet, in_force, kept, settings)
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
        dns.serving(fleet, settings.closed_host, settings.dns_port),
        request_log.receiving(requests, settings.closed_host, settings.syslog_port),
        watching_containers(in_force, settings.containers),
        scaling(fleet, in_force, requests, kept, settings.containers, settings.state / "load") as scaler,
    ):
        app.include_router(scaling_api.routes(scaler), dependencies=[Security(BEARER)])
        loops = [
            asyncio.create_task(each)
            for each in (fleet.watch(), gateway.follow(), configuration.watch(), requests.spans.run())
        ]
        if settings.services:
            services = Services(settings.services, settings.resolver, in_force, fleet.tell)
            loops.append(asyncio.create_task(services.follow()))
        structlog.get_logger().info(
            "controller_started", engines=list(fleet.members), pools=[p.name for p in cluster.served_pools]
        )
        serving = asyncio.create_task(server.serve())
        done, _ = await asyncio.wait({*loops, serving}, return_when=asyncio.FIRST_COMPLETED)
        for each in loops:
            each.cancel()
        server.should_exit = True
        await serving
        for task in done:
            task.result()


def main() -> int:
    events.to_json("controller")
    try:
        uvloop.run(run(Settings.from_environment()))
    except Unusable as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
