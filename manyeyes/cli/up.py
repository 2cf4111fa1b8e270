"""`manyeyes up`: from what the host has to the first answer; `manyeyes down|clean`: all of it away."""

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
    host_info,
    images,
    readiness,
    secrets,
    start_failure,
    started_services,
)
from manyeyes.cli.compose import AS_IT_IS, Compose
from manyeyes.cli.engine_containers import EngineContainers, engines_to_replace, replace, restart_times
from manyeyes.cli.engine_restart import SERVING
from manyeyes.cli.host_info import Docker
from manyeyes.cli.process import CommandFailed, end_all
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


def plan(written: Cluster, flavour: str, docker: Docker) -> tuple[PlacedCluster, Inventory]:
    """What is going to run: the configuration laid out on what this host has. Raises PlacementError, CliError."""
    found = gpu_discovery.discover(written, docker, flavour, written.name, dict(os.environ))
    return place_engines(written, found), found


def up(config: Path, flavour: str) -> None:
    """Brings the cluster up. What this run started is taken down again when it fails or is interrupted."""
    written = load(config)  # first: a wrong file is told before anything is installed
    keys = load_keys(keys_path(config, written))
    print_line(f"ManyEyes, {config}")
    docker = docker_install.ensure()
    cluster, inventory = plan(written, flavour, docker)
    compose = Compose(cluster.name)
    ran_before = compose.runs()
    for file in (keys_path(config, written), users_path(config, written)):
        if file.exists():
            checkout.grant_container_access(file)
    if not compose.network_is_closed():
        # Compose would replace the network under engines that keep the old one.
        raise CliError(
            f"'{cluster.name}' runs in the network of an older version, which led out of it: make down, then this again"
        )
    doctor.fail_on_blockers(doctor.run_checks(written, docker, inventory, ran_before, config))
    _tell_layout(cluster)
    outcome = images.provide(cluster)
    secrets.ensure_certificate(cluster)
    secrets.ensure_admin_key(config)
    files = render(cluster, inventory, config, compose.rendered, mounted_files())
    files[started_services.CONFIGURATION] = config.read_text(encoding="utf-8")
    write_files(files, ROOT / compose.rendered, kept=frozenset({started_services.NAME}))
    try:
        changed = _changed(cluster, compose) if ran_before else []
        _start(cluster, compose, set(outcome.missing), config, *_later(cluster, compose, changed))
    except BaseException as error:
        end_all()
        if not ran_before:
            if not isinstance(error, KeyboardInterrupt):
                _keep_logs(compose)
            with step("taking down what was started"):
                compose.down()
        raise
    env_file.write_block(compose.environment)
    readiness.print_next_steps(cluster, keys, config, grafana=cluster.images.grafana not in outcome.missing)


def mounted_files() -> str:
    """The digest of what the gateway mounts of this checkout: another checkout starts the gateway anew."""
    digest = hashlib.sha256()
    for path in sorted(path for path in (ROOT / "nginx").rglob("*") if path.is_file()):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _keep_logs(compose: Compose) -> None:
    """Of every container, for they go. Never in the way of taking them down."""
    with contextlib.suppress(Exception):
        if files := start_failure.keep_logs(compose, sorted({row["Service"] for row in compose.containers()})):
            print_warning(f"logs of what was started are kept: {from_checkout(files[0].parent)}")


def _tell_layout(cluster: PlacedCluster) -> None:
    for pool in cluster.served_pools:
        engines = [one for one in cluster.engines if one.pool == pool.name]
        if pool.remote:
            print_ok(f"{pool.name}: at {pool.remote.host}")
            continue
        where = ", ".join(f"{one.name}" for one in engines)
        print_ok(f"{pool.name}: {len(engines)} engine{'s' if len(engines) > 1 else ''} ({where})")


def _changed(cluster: PlacedCluster, compose: Compose) -> list[str]:
    """Engines that serve users and run from an older definition."""
    if compose.subnet() != str(cluster.network.subnet):
        return []  # they all move to another network, which takes them away together
    serving = {name for name, one in EngineContainers(cluster, compose).look().items() if one.state in SERVING}
    return [name for name in compose.would_recreate([one.name for one in cluster.started_engines]) if name in serving]


def _later(cluster: PlacedCluster, compose: Compose, changed: list[str]) -> tuple[list[str], list[str]]:
    """Of those that changed: which are restarted one after the other, once all else is up, and which are left as they are.

    An engine that is alone in its pool is not restarted for another name: nobody would answer meanwhile, and the gateway asks it by
    a name that it accepts.
    """
    folder = ROOT / compose.rendered
    before, after = started_services.services(folder), started_services.rendered_services(folder)
    left = [
        name
        for name in changed
        if name in cluster.engines_alone_in_pool
        and name in before
        and name in after
        and started_services.differ_in_names_only(before[name], after[name])
    ]
    return [name for name in changed if name not in left], left


def _start(
    cluster: PlacedCluster, compose: Compose, missing_images: set[str], config: Path, later: list[str], left: list[str]
) -> None:
    folder, running = (
        ROOT / compose.rendered,
        {row["Service"] for row in compose.containers() if row["State"] == "running"},
    )
    names, old = engines_to_start(cluster, running), engines_to_replace(cluster, compose, running)
    # Beside engines with other names, these are started one after the other: users are never without any.
    fresh = [name for name in names if name not in running] if old else []
    started_services.keep_only(folder, [*later, *left, *old, MODELS])
    at_once = [name for name in names if name not in (*later, *left, *fresh)]
    # Compose brings the models before the engines that it starts.
    started_services.record(folder, [*at_once, *([MODELS] if at_once else [])])
    with step("starting containers") as current:
        try:
            with readiness.show_downloads(compose, current):
                orphans = [] if old else ["--remove-orphans"]
                compose("up", *orphans, *AS_IT_IS, *_services(cluster, missing_images, at_once))
                if stand_ins := [one.name for one in cluster.started_engines if one.time_shares_with]:
                    # Scaling starts them when it hands them their GPU.
                    compose("create", "--no-build", "--pull", "never", *stand_ins)
        except CommandFailed as error:
            # What a part said before it failed tells more than Compose does.
            failed = re.search(rf'container {compose.project}-(\S+)-1 |service "([^"]+)" didn', error.output)
            what = f"containers could not be started: {_reason(error)}"
            if failed:
                raise start_failure.explained(compose, failed.group(1) or failed.group(2), what) from error
            told = f"{what}. {start_failure.remedy(error.output)}".rstrip()
            raise CliError(told, details=error.output) from error
        current.outcome = "containers started"
    gateway_client.wait_until_applied(compose, cluster, config)
    if at_once:
        with step("starting engines") as current:
            readiness.wait_until_up(cluster, compose, current, restart_times(cluster).start_s, set(at_once))
    if old:
        replace(cluster, compose, fresh, old)
        _remove_orphans(compose)
    if later:
        print_ok(f"restarting one after the other, because their definition changed: {', '.join(later)}")
        restart_one_by_one(cluster, compose, later)
    for name in left:
        pool = cluster.engines_alone_in_pool[name]
        print_warning(
            f"{name} is alone in pool {pool} and keeps running with the names it was started with: the gateway translates "
            f"the new ones, and the old ones stay valid. make restart-rolling POOL={pool} restarts it when nobody needs it"
        )
    with step("asking about a picture") as current:
        answered_by, seconds = readiness.first_answer(cluster, compose)
        current.outcome = f"{answered_by} answered about a picture in {seconds:.1f} s"
    _recreate_note(compose)


def _remove_orphans(compose: Compose) -> None:
    try:
        compose("up", "--remove-orphans", "--no-recreate", "--no-deps", *AS_IT_IS, "gateway")
    except CommandFailed as error:
        reason = f"containers that are not needed any more could not be removed: {_reason(error)}. Run make up again."
        raise CliError(reason, details=error.output) from error


def engines_to_start(cluster: PlacedCluster, running: set[str]) -> list[str]:
    """All but those that run instead of another one, and those whose GPU such a one has just now."""
    taken = {one.time_shares_with for one in cluster.started_engines if one.name in running}
    return [one.name for one in cluster.started_engines if one.time_shares_with is None and one.name not in taken]


def _services(cluster: PlacedCluster, missing_images: set[str], engines: list[str]) -> list[str]:
    """By name, so that a service whose image cannot be had is left out."""
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
    names += [name for name, image in _asked_for(cluster).items() if image not in missing_images]
    return names


def _asked_for(cluster: PlacedCluster) -> dict[str, str]:
    """{service: image} of those that are only started where the configuration says so, and can only be pulled."""
    images = cluster.images
    loki = {"loki": images.loki, "alloy": images.alloy} if cluster.logs.loki.enabled else {}
    return loki | ({"jaeger": images.jaeger} if cluster.tracing.starts_jaeger else {})


def _reason(error: CommandFailed) -> str:
    lines = [line for line in error.output.splitlines() if "rror" in line or "failed" in line]
    return lines[-1].strip() if lines else error.last_line


def _recreate_note(compose: Compose) -> None:
    unhealthy = [row["Service"] for row in compose.containers() if "(unhealthy)" in row["Status"]]
    if unhealthy:
        print_warning(f"not healthy: {', '.join(unhealthy)} (docker compose logs tells why)")


def down(config: Path, volumes: bool) -> None:
    """With its volumes too where asked. Raises CliError."""
    docker = host_info.docker()
    docker_install.require_access(docker)
    if not docker.server:
        print_ok("Docker does not run, so nothing of the cluster does")
        return
    compose = Compose.of_started(started_services.configuration(config).name)
    with step("stopping the cluster") as current:
        try:
            compose.down(*(["--volumes"] if volumes else []))
        except CommandFailed as error:
            raise CliError(f"the cluster could not be stopped: {error.last_line}", details=error.output) from error
        current.outcome = "the cluster is down" + (
            ", its volumes are gone" if volumes else "; models and metrics are kept"
        )
    env_file.write_block({})
