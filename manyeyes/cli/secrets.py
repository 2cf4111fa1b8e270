"""The secrets folder: which of its files the configuration names, and whether the gateway can read them."""

from pathlib import Path

from manyeyes.config import checkout
from manyeyes.config.cluster import Cluster
from manyeyes.config.placement import PlacedCluster

GATEWAY_USER = 101
"""nginx's user in its image; without the folder's group it has this one only."""


def folder() -> Path:
    """SECRETS_DIR, else secrets/ of this checkout."""
    return checkout.secrets_folder()


def group() -> int:
    """The group that the gateway is given, so that files may be closed to everybody else."""
    return checkout.secrets_group()


def of_pools(cluster: PlacedCluster) -> dict[str, str]:
    """{setting: file} for what remote pools and endpoints need; file names are inside the folder."""
    named: dict[str, str] = {}
    for pool in cluster.served_pools:
        if pool.remote and pool.remote.key_file:
            named[f"pools[{pool.name}].remote.key_file"] = pool.remote.key_file
        if pool.remote and pool.remote.ca_file:
            named[f"pools[{pool.name}].remote.ca_file"] = pool.remote.ca_file
    for engine in cluster.engines:
        for name in engine.endpoint.secret_files if engine.endpoint else ():
            named[f"engines[{engine.name}].endpoint ({name})"] = name
    return named


def of_alerting(cluster: Cluster) -> dict[str, str]:
    """{setting: file} for what Alertmanager needs to tell somebody."""
    alerting = cluster.monitoring.alerting
    files = [(f"webhooks[{number}].url_file", one.url_file) for number, one in enumerate(alerting.webhooks, start=1)]
    files += [
        (f"emails[{number}].password_file", one.password_file) for number, one in enumerate(alerting.emails, start=1)
    ]
    return {f"monitoring.alerting.{place}": name for place, name in files if name}


def of_certificate(cluster: Cluster) -> dict[str, str]:
    """{setting: file} for the gateway's own certificate; empty without TLS."""
    tls = cluster.gateway.tls
    return {"gateway.tls.certificate": tls.certificate, "gateway.tls.key": tls.key} if tls else {}


def state(name: str) -> tuple[str, str]:
    """What is found at `name`, and what to do about it; the latter is empty when the gateway can read it."""
    path = folder() / name
    if not path.is_file():
        return "missing", f"Put the file there: {path}"
    if not path.resolve().is_relative_to(folder().resolve()):
        return "a link out of the folder", f"Containers cannot follow it; copy the file to {path}"
    if not _lets_in(folder(), 0o111):
        return "in a closed folder", f"chmod g+x {folder()}"
    if not _lets_in(path, 0o444):
        return "closed to the gateway", f"chgrp {group()} {path} && chmod g+r {path}"
    return "there", ""


def _lets_in(path: Path, bits: int) -> bool:
    """Whether one of the permission bits holds for the gateway's user or its groups."""
    return checkout.has_access(path, GATEWAY_USER, (GATEWAY_USER, group()), bits)


def of_configuration(path: Path) -> tuple[str, str]:
    """What is found at a file of keys or users beside the configuration, and what to do when its container cannot read it."""
    if not path.exists():
        return "none", ""
    if checkout.is_readable_by_containers(path):
        return "readable by its container", ""
    return "closed to its container", f"chgrp {group()} {path} && chmod g+r {path}"
