"""`make up`: from what the host has to the first answer."""

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from config import closed_file
from config.cluster import Cluster
from config.inventory import Inventory
from config.keys import load_keys
from config.layout import lay_out
from config.load import keys_path, load, users_path
from host import (
    admin_key,
    certificate,
    controller,
    doctor,
    dotenv,
    engine,
    failure,
    hello,
    images,
    inventory,
    started,
    wait,
)
from host.command import ROOT, CommandFailed, end_all
from host.compose import Compose
from host.containers import Containers, rules
from host.facts import Docker
from host.mounted import mounted_files
from host.replace import replace, replaced
from host.restart_rolling import MODELS, alone_in_pool, roll
from host.rolling import SERVING
from host.terminal import attention, ok, say, step
from host.trouble import Trouble
from render.cluster import render
from render.engines import fetches_media
from render.write import write


@dataclass(frozen=True)
class Plan:
    """What is going to run: the configuration laid out on what this host has."""

    cluster: Cluster
    inventory: Inventory


def plan(written: Cluster, flavour: str, docker: Docker) -> Plan:
    """Looks at the host. Raises LayoutError, Trouble."""
    found = inventory.take(written, docker, flavour, written.name, dict(os.environ))
    return Plan(lay_out(written, found), found)


def up(config: Path, flavour: str) -> None:
    """Brings the cluster up. What this run started is taken down again when it fails or is interrupted."""
    written = load(config)  # first: a wrong file is told before anything is installed
    keys = load_keys(keys_path(config, written))
    say(f"ManyEyes, {config}")
    docker = engine.ensure()
    intended = plan(written, flavour, docker)
    cluster = intended.cluster
    compose = Compose(cluster.name)
    ran_before = compose.runs()
    for file in (keys_path(config, written), users_path(config, written)):
        if file.exists():
            closed_file.hand_over(file)
    if not compose.network_is_closed():
        # Compose would replace the network under engines that keep the old one.
        raise Trouble(
            f"'{cluster.name}' runs in the network of an older version, which led out of it: make down, then this again"
        )
    doctor.refuse_if_hopeless(doctor.look(written, docker, intended.inventory, ran_before, config))
    _tell_layout(cluster)
    outcome = images.provide(cluster)
    certificate.ensure(cluster)
    admin_key.ensure()
    files = render(written, intended.inventory, config, compose.rendered, mounted_files())
    files[started.CONFIGURATION] = config.read_text(encoding="utf-8")
    write(files, ROOT / compose.rendered, kept=frozenset({started.NAME}))
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
    dotenv.keep(compose.environment)
    hello.show(cluster, keys, grafana=cluster.images.grafana not in outcome.missing)


def _keep_logs(compose: Compose) -> None:
    """Of every container, for they go. Never in the way of taking them down."""
    with contextlib.suppress(Exception):
        if files := failure.keep_logs(compose, sorted({row["Service"] for row in compose.containers()})):
            attention(f"logs of what was started are kept: {failure.shown(files[0].parent)}")


def _tell_layout(cluster: Cluster) -> None:
    for pool in cluster.served_pools:
        engines = [one for one in cluster.explicit_engines if one.pool == pool.name]
        if pool.remote:
            ok(f"{pool.name}: at {pool.remote.host}")
            continue
        where = ", ".join(f"{one.name}" for one in engines)
        ok(f"{pool.name}: {len(engines)} engine{'s' if len(engines) > 1 else ''} ({where})")


def _changed(cluster: Cluster, compose: Compose) -> list[str]:
    """Engines that serve users and run from an older definition."""
    if compose.subnet() != str(cluster.network.subnet):
        return []  # they all move to another network, which takes them away together
    serving = {name for name, one in Containers(cluster, compose).look().items() if one.state in SERVING}
    return [name for name in compose.would_recreate([one.name for one in cluster.started_engines]) if name in serving]


def _later(cluster: Cluster, compose: Compose, changed: list[str]) -> tuple[list[str], list[str]]:
    """Of those that changed: which are restarted one after the other, once all else is up, and which are left as they are.

    An engine that is alone in its pool is not restarted for another name: nobody would answer meanwhile, and the gateway asks it by
    a name that it accepts.
    """
    folder = ROOT / compose.rendered
    before, after, alone = started.services(folder), started.wanted(folder), alone_in_pool(cluster)
    left = [
        name
        for name in changed
        if name in alone
        and name in before
        and name in after
        and started.differ_in_names_only(before[name], after[name])
    ]
    return [name for name in changed if name not in left], left


def _start(
    cluster: Cluster, compose: Compose, missing_images: set[str], config: Path, later: list[str], left: list[str]
) -> None:
    folder, running = ROOT / compose.rendered, _running(compose)
    names, old = engines_to_start(cluster, running), replaced(cluster, compose, running)
    # Beside engines with other names, these are started one after the other: users are never without any.
    fresh = [name for name in names if name not in running] if old else []
    started.forget_others(folder, [*later, *left, *old, MODELS])
    at_once = [name for name in names if name not in (*later, *left, *fresh)]
    # Compose brings the models before the engines that it starts.
    started.note(folder, [*at_once, *([MODELS] if at_once else [])])
    with step("starting containers") as current:
        try:
            with wait.downloads_told(compose, current):
                orphans = [] if old else ["--remove-orphans"]
                arguments = ["up", "--detach", *orphans, "--no-build", "--pull", "never"]
                compose(*arguments, *_services(cluster, missing_images, at_once))
                if stand_ins := [one.name for one in cluster.started_engines if one.instead_of]:
                    # Scaling starts them when it hands them their GPU.
                    compose("create", "--no-build", "--pull", "never", *stand_ins)
        except CommandFailed as error:
            # What a part said before it failed tells more than Compose does.
            failed = re.search(rf'container {compose.project}-(\S+)-1 |service "([^"]+)" didn', error.output)
            what = f"containers could not be started: {_reason(error)}"
            if failed:
                raise failure.explained(compose, failed.group(1) or failed.group(2), what) from error
            told = f"{what}. {failure.remedy(error.output)}".rstrip()
            raise Trouble(told, details=error.output) from error
        current.outcome = "containers started"
    controller.take_configuration(compose, cluster, config)
    if at_once:
        with step("starting engines") as current:
            wait.until_up(cluster, compose, current, rules(cluster).start_s, set(at_once))
    if old:
        replace(cluster, compose, fresh, old)
        _remove_orphans(compose)
    if later:
        ok(f"restarting one after the other, because their definition changed: {', '.join(later)}")
        roll(cluster, compose, later)
    for name in left:
        pool = alone_in_pool(cluster)[name]
        attention(
            f"{name} is alone in pool {pool} and keeps running with the names it was started with: the gateway translates "
            f"the new ones, and the old ones stay valid. make restart-rolling POOL={pool} restarts it when nobody needs it"
        )
    with step("asking about a picture") as current:
        answered_by, seconds = hello.first_answer(cluster, compose)
        current.outcome = f"{answered_by} answered about a picture in {seconds:.1f} s"
    _recreate_note(compose)


def _remove_orphans(compose: Compose) -> None:
    """What else is not in the configuration any more."""
    try:
        arguments = [
            "up",
            "--detach",
            "--remove-orphans",
            "--no-recreate",
            "--no-deps",
            "--no-build",
            "--pull",
            "never",
        ]
        compose(*arguments, "gateway")
    except CommandFailed as error:
        reason = f"containers that are not needed any more could not be removed: {_reason(error)}. Run make up again."
        raise Trouble(reason, details=error.output) from error


def _running(compose: Compose) -> set[str]:
    return {row["Service"] for row in compose.containers() if row["State"] == "running"}


def engines_to_start(cluster: Cluster, running: set[str]) -> list[str]:
    """All but those that run instead of another one, and those whose GPU such a one has just now."""
    taken = {one.instead_of for one in cluster.started_engines if one.name in running}
    return [one.name for one in cluster.started_engines if one.instead_of is None and one.name not in taken]


def _services(cluster: Cluster, missing_images: set[str], engines: list[str]) -> list[str]:
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


def _asked_for(cluster: Cluster) -> dict[str, str]:
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
        attention(f"not healthy: {', '.join(unhealthy)} (docker compose logs tells why)")
