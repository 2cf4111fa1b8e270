"""`make up`: from what the host has to the first answer."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from config.cluster import Cluster
from config.inventory import Inventory
from config.keys import load_keys
from config.layout import lay_out
from config.load import keys_path, load
from host import admin_key, certificate, doctor, dotenv, engine, gateway, hello, images, inventory, wait
from host.command import ROOT, CommandFailed, end_all
from host.compose import Compose
from host.facts import Docker
from host.terminal import attention, ok, say, step
from host.trouble import Trouble
from render.cluster import RELOADED, render
from render.write import write

DEADLINE_S = {"emulated": 120.0, "cpu": 900.0, "cuda": 5400.0}
"""How long engines may take: a GPU's includes the download of its model."""


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
    doctor.refuse_if_hopeless(doctor.look(written, docker, intended.inventory, ran_before, config))
    _tell_layout(cluster)
    outcome = images.provide(cluster)
    certificate.ensure(cluster)
    admin_key.ensure()
    files = render(written, intended.inventory, config, compose.rendered, _mounted_files(), keys)
    changed = write(files, ROOT / compose.rendered)
    # Also where nothing changed: a certificate may be another one, and a run before this one may have been interrupted.
    reload = bool(keys.keys or cluster.gateway.tls or set(changed) & set(RELOADED))
    try:
        _start(cluster, compose, set(outcome.missing), reload)
    except BaseException:
        end_all()
        if not ran_before:
            with step("taking down what was started"):
                compose.down()
        raise
    dotenv.keep(compose.environment)
    hello.show(cluster, keys, grafana=cluster.images.grafana not in outcome.missing)


def _mounted_files() -> str:
    """A digest of the files of this checkout that the gateway mounts: another checkout starts it anew."""
    digest = hashlib.sha256()
    for path in sorted(path for path in (ROOT / "nginx").rglob("*") if path.is_file()):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _tell_layout(cluster: Cluster) -> None:
    for pool in cluster.served_pools:
        engines = [one for one in cluster.explicit_engines if one.pool == pool.name]
        if pool.remote:
            ok(f"{pool.name}: at {pool.remote.host}")
            continue
        where = ", ".join(f"{one.name}" for one in engines)
        ok(f"{pool.name}: {len(engines)} engine{'s' if len(engines) > 1 else ''} ({where})")


def _start(cluster: Cluster, compose: Compose, missing_images: set[str], reload: bool) -> None:
    before = _gateway(compose)
    with step("starting containers") as current:
        try:
            with wait.downloads_told(compose, current):
                arguments = ["up", "--detach", "--remove-orphans", "--no-build", "--pull", "never"]
                compose(*arguments, *_services(cluster, missing_images))
        except CommandFailed as error:
            # What a part said before it failed tells more than Compose does.
            failed = re.search(rf'container {compose.project}-(\S+)-1 |service "([^"]+)" didn', error.output)
            said = compose.logs(failed.group(1) or failed.group(2)) if failed else error.output
            raise Trouble(f"containers could not be started: {_reason(error)}", details=said) from error
        current.outcome = "containers started"
    if reload and before and _gateway(compose) == before:
        _reload(compose)
    flavours = {one.flavour for one in cluster.started_engines} or {"emulated"}
    with step("starting engines") as current:
        wait.until_up(cluster, compose, current, max(DEADLINE_S[one] for one in flavours))
    with step("asking about a picture") as current:
        answered_by, seconds = hello.first_answer(cluster, compose)
        current.outcome = f"{answered_by} answered about a picture in {seconds:.1f} s"
    _recreate_note(compose)


def _gateway(compose: Compose) -> str:
    """The id of the gateway's container while it runs, else empty."""
    return next(
        (row["ID"] for row in compose.containers() if row["Service"] == "gateway" and row["State"] == "running"), ""
    )


def _reload(compose: Compose) -> None:
    try:
        gateway.reload(compose)
    except CommandFailed as error:
        raise Trouble(
            f"the gateway refuses its new keys or certificate and goes on with the old ones: {error.last_line}"
        ) from error
    ok("the gateway took over keys and certificate")


def _services(cluster: Cluster, missing_images: set[str]) -> list[str]:
    """By name, so that a service whose image cannot be had is left out."""
    names = ["gateway", "controller", "webui", *(one.name for one in cluster.started_engines)]
    names += ["adapter"] if cluster.starts_adapter else []
    if cluster.monitoring.enabled:
        names += ["prometheus", "nginx-exporter"]
        names += [] if cluster.images.grafana in missing_images else ["grafana"]
    return names


def _reason(error: CommandFailed) -> str:
    lines = [line for line in error.output.splitlines() if "rror" in line or "failed" in line]
    return lines[-1].strip() if lines else error.last_line


def _recreate_note(compose: Compose) -> None:
    unhealthy = [row["Service"] for row in compose.containers() if "(unhealthy)" in row["Status"]]
    if unhealthy:
        attention(f"not healthy: {', '.join(unhealthy)} (docker compose logs tells why)")
