"""`manyeyes up` starts the cluster and sends a first request; `manyeyes down|clean` stop and remove it."""

import contextlib
import hashlib
import os
import re
from pathlib import Path

from manyeyes.cli import (
    docker_install,
    doctor,
    env_file,
    gateway_client,
    gpu_discovery,
    gpu_probe,
    host_info,
    images,
    readiness,
    secrets,
    start_failure,
    started_services,
)
from manyeyes.cli.compose import LOCAL_IMAGES_ONLY, Compose
from manyeyes.cli.engine_containers import EngineContainers, engines_to_replace, replace, restart_times
from manyeyes.cli.engine_restart import SERVING
from manyeyes.cli.host_info import Docker
from manyeyes.cli.process import CommandFailed, stop_all
from manyeyes.cli.rolling_restart import MODELS, restart_one_by_one
from manyeyes.cli.terminal import CliError, print_line, print_ok, print_warning, step
from manyeyes.config import checkout
from manyeyes.config.checkout import ROOT, from_checkout
from manyeyes.config.cluster import Cluster
from manyeyes.config.credentials import load_keys
from manyeyes.config.loader import keys_path, load, users_path
from manyeyes.config.placement import Inventory, PlacedCluster, place_engines
from manyeyes.render.engine_container import fetches_media
from manyeyes.render.rendered_file import write_files
from manyeyes.render.renderer import render


def plan(configured: Cluster, flavour: str, docker: Docker) -> tuple[PlacedCluster, Inventory]:
    """Inspects this host and places the engines on it. Raises PlacementError, CliError."""
    inventory = gpu_discovery.discover(configured, docker, flavour, configured.name, dict(os.environ))
    return place_engines(configured, inventory), inventory


def up(config: Path, flavour: str) -> None:
    """Starts the cluster. If this run fails or is interrupted, it stops the containers that it started."""
    configured = load(config)  # first, so that an invalid file is reported before anything is installed
    keys = load_keys(keys_path(config, configured))
    print_line(f"ManyEyes, {config}")
    docker = docker_install.ensure()
    cluster, inventory = plan(configured, flavour, docker)
    secrets.ensure_page_key()
    compose = Compose(cluster.name)
    was_running = compose.runs()
    for file in (keys_path(config, configured), users_path(config, configured)):
        if file.exists():
            checkout.grant_container_access(file)
    if not compose.network_is_closed():
        # Compose would replace the network while engines still use the old network.
        raise CliError(
            f"'{cluster.name}' runs in the network of an older version, which allows outgoing connections. "
            "Run `make down`, then run this again."
        )
    doctor.fail_on_blockers(doctor.run_checks(configured, docker, inventory, was_running, config))
    _print_placement(cluster)
    image_report = images.provide(cluster, config=config)
    if not was_running:  # else engines use the GPUs already
        gpu_probe.probe_gpus(cluster)
    secrets.ensure_certificate(cluster)
    secrets.ensure_admin_key(config)
    files = render(
        cluster, inventory, config, compose.rendered, mounted_files_digest(), secrets.identify_alerting_files(cluster)
    )
    files[started_services.CONFIGURATION] = config.read_text(encoding="utf-8")
    write_files(files, ROOT / compose.rendered, unchanged=frozenset({started_services.NAME}))
    try:
        changed = _changed_engines(cluster, compose) if was_running else []
        _start(cluster, compose, set(image_report.missing), config, *_split_changed(cluster, compose, changed))
    except BaseException as error:
        stop_all()
        if not was_running:
            if not isinstance(error, KeyboardInterrupt):
                _save_all_logs(compose)
            with step("stopping the containers that were started"):
                compose.down()
        raise
    env_file.write_block(compose.environment)
    readiness.print_next_steps(cluster, keys, config, grafana=cluster.images.grafana not in image_report.missing)


def mounted_files_digest() -> str:
    """Returns a digest of the files that the gateway mounts. If it changes, the gateway is started again."""
    digest = hashlib.sha256()
    for path in sorted(path for path in (ROOT / "nginx").rglob("*") if path.is_file()):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _save_all_logs(compose: Compose) -> None:
    """Saves the logs of all containers before they are removed. Errors are ignored."""
    with contextlib.suppress(Exception):
        if files := start_failure.save_logs(compose, sorted({row["Service"] for row in compose.containers()})):
            print_warning(f"the logs of the containers were saved: {from_checkout(files[0].parent)}")


def _print_placement(cluster: PlacedCluster) -> None:
    for pool in cluster.served_pools:
        engines = [engine for engine in cluster.engines if engine.pool == pool.name]
        if pool.remote:
            print_ok(f"{pool.name}: remote, at {pool.remote.host}")
            continue
        names = ", ".join(f"{engine.name}" for engine in engines)
        print_ok(f"{pool.name}: {len(engines)} engine{'s' if len(engines) > 1 else ''} ({names})")


def _changed_engines(cluster: PlacedCluster, compose: Compose) -> list[str]:
    """Returns the engines that serve requests with an older definition."""
    if compose.subnet() != str(cluster.network.subnet):
        return []  # all engines move to another network, so all stop together
    serving = {
        name for name, status in EngineContainers(cluster, compose).query_engines().items() if status.state in SERVING
    }
    return [
        name for name in compose.would_recreate([engine.name for engine in cluster.started_engines]) if name in serving
    ]


def _split_changed(cluster: PlacedCluster, compose: Compose, changed: list[str]) -> tuple[list[str], list[str]]:
    """Splits the changed engines into those that are restarted at the end, one by one, and those left unchanged.

    The only engine of a pool is not restarted for a changed name: no other engine could answer, and the gateway sends
    it a name that it accepts.
    """
    folder = ROOT / compose.rendered
    before, after = started_services.services(folder), started_services.rendered_services(folder)
    unchanged = [
        name
        for name in changed
        if name in cluster.engines_alone_in_pool
        and name in before
        and name in after
        and started_services.differ_in_names_only(before[name], after[name])
    ]
    return [name for name in changed if name not in unchanged], unchanged


def _start(
    cluster: PlacedCluster,
    compose: Compose,
    missing_images: set[str],
    config: Path,
    restarted_later: list[str],
    unchanged: list[str],
) -> None:
    folder, running = (
        ROOT / compose.rendered,
        {row["Service"] for row in compose.containers() if row["State"] == "running"},
    )
    names, old = engines_to_start(cluster, running), engines_to_replace(cluster, compose, running)
    # While engines with old names run, new engines start one after the other, so that requests are always served.
    new = [name for name in names if name not in running] if old else []
    started_services.keep_only(folder, [*restarted_later, *unchanged, *old, MODELS])
    immediate = [name for name in names if name not in (*restarted_later, *unchanged, *new)]
    # Compose downloads the models before it starts engines.
    started_services.record(folder, [*immediate, *([MODELS] if immediate else [])])
    with step("starting containers") as current:
        try:
            with readiness.show_downloads(compose, current):
                orphans = [] if old else ["--remove-orphans"]
                compose("up", *orphans, *LOCAL_IMAGES_ONLY, *_services(cluster, missing_images, immediate))
                if stand_ins := [engine.name for engine in cluster.started_engines if engine.time_shares_with]:
                    # Autoscaling starts them when it gives them their GPU.
                    compose("create", "--no-build", "--pull", "never", *stand_ins)
        except CommandFailed as error:
            # The log of the failed service has more information than Compose's output.
            failed = re.search(rf'container {compose.project}-(\S+)-1 |service "([^"]+)" didn', error.output)
            failure = f"containers could not be started: {_find_reason(error)}"
            if failed:
                raise start_failure.explain_failure(compose, failed.group(1) or failed.group(2), failure) from error
            message = f"{failure}. {start_failure.remedy(error.output)}".rstrip()
            raise CliError(message, details=error.output) from error
        current.outcome = "containers started"
    gateway_client.wait_until_applied(compose, cluster, config)
    if immediate:
        with step("starting engines") as current:
            readiness.wait_until_up(cluster, compose, current, restart_times(cluster).start_s, set(immediate))
    if old:
        replace(cluster, compose, new, old)
        _remove_orphans(compose)
    if restarted_later:
        print_ok(f"restarting one after the other, because their definition changed: {', '.join(restarted_later)}")
        restart_one_by_one(cluster, compose, restarted_later)
    for name in unchanged:
        pool = cluster.engines_alone_in_pool[name]
        print_warning(
            f"{name} is the only engine of pool {pool}, so it was not restarted and runs with its previous names. "
            "The gateway translates the new names, and the previous names stay valid. "
            f"`make restart-rolling POOL={pool}` restarts it."
        )
    with step("sending a request with an image") as current:
        answered_by, seconds = readiness.send_first_request(cluster, compose)
        current.outcome = f"{answered_by} answered a request with an image in {seconds:.1f} s"
    _warn_about_unhealthy(compose)


def _remove_orphans(compose: Compose) -> None:
    try:
        compose("up", "--remove-orphans", "--no-recreate", "--no-deps", *LOCAL_IMAGES_ONLY, "gateway")
    except CommandFailed as error:
        reason = f"unused containers could not be removed: {_find_reason(error)}. Run `make up` again."
        raise CliError(reason, details=error.output) from error


def engines_to_start(cluster: PlacedCluster, running: set[str]) -> list[str]:
    """Returns all engines except those with time_shares_with, and those whose GPU such an engine currently uses."""
    taken = {engine.time_shares_with for engine in cluster.started_engines if engine.name in running}
    return [
        engine.name
        for engine in cluster.started_engines
        if engine.time_shares_with is None and engine.name not in taken
    ]


def _services(cluster: PlacedCluster, missing_images: set[str], engines: list[str]) -> list[str]:
    """Returns the names of the services to start, without those whose image is missing."""
    names = ["gateway", "controller", "webui", *engines]
    names += ["adapter"] if cluster.starts_adapter else []
    names += ["media"] if fetches_media(cluster) else []
    names += ["containers"] if cluster.controller.containers else []
    if cluster.monitoring.enabled:
        names += ["prometheus", "alertmanager", "nginx-exporter", "node-exporter"]
        names += (
            ["dcgm-exporter"] if cluster.watches_gpus and cluster.images.dcgm_exporter not in missing_images else []
        )
        names += [] if cluster.images.grafana in missing_images else ["grafana"]
    names += [name for name, image in _optional_services(cluster).items() if image not in missing_images]
    return names


def _optional_services(cluster: PlacedCluster) -> dict[str, str]:
    """Returns {service: image} of the optional services that the configuration enables. Their images can only be
    pulled."""
    images = cluster.images
    loki = {"loki": images.loki, "alloy": images.alloy} if cluster.logs.loki.enabled else {}
    return loki | ({"jaeger": images.jaeger} if cluster.tracing.starts_jaeger else {})


def _find_reason(error: CommandFailed) -> str:
    lines = [line for line in error.output.splitlines() if "rror" in line or "failed" in line]
    return lines[-1].strip() if lines else error.last_line


def _warn_about_unhealthy(compose: Compose) -> None:
    unhealthy = [row["Service"] for row in compose.containers() if "(unhealthy)" in row["Status"]]
    if unhealthy:
        print_warning(f"unhealthy: {', '.join(unhealthy)} (`docker compose logs` shows the reason)")


def down(config: Path, volumes: bool) -> None:
    """Stops and removes the cluster, and its volumes if `volumes` is true. Raises CliError."""
    docker = host_info.docker()
    docker_install.require_access(docker)
    if not docker.server:
        print_ok("Docker is not running, so the cluster is not running")
        return
    compose = Compose.of_started(started_services.configuration(config).name)
    with step("stopping the cluster") as current:
        try:
            compose.down(*(["--volumes"] if volumes else []))
        except CommandFailed as error:
            raise CliError(f"the cluster could not be stopped: {error.last_line}", details=error.output) from error
        current.outcome = "the cluster is down" + (
            ", and its volumes are deleted" if volumes else "; models and metrics were not deleted"
        )
    env_file.write_block({})
