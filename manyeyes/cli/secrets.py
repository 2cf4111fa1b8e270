"""The secrets folder: which of its files the configuration names, and whether the gateway can read them; the admin key, and a self-signed
certificate where the operator has none."""

import contextlib
import os
import re
import secrets as randomness
import shutil
import tempfile
from pathlib import Path

from manyeyes.cli import host_info
from manyeyes.cli.invocation import next_command
from manyeyes.cli.process import CommandFailed, run
from manyeyes.cli.terminal import CliError, print_ok, print_warning
from manyeyes.config import checkout
from manyeyes.config.checkout import from_checkout, secrets_folder, secrets_group
from manyeyes.config.cluster import Cluster
from manyeyes.config.fields import parse_address
from manyeyes.config.placement import PlacedCluster

GATEWAY_USER = 101
"""nginx's user in its image; without the folder's group it has this one only."""


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
    path = secrets_folder() / name
    if not path.is_file():
        return "missing", f"Put the file there: {path}"
    if not path.resolve().is_relative_to(secrets_folder().resolve()):
        return "a link out of the folder", f"Containers cannot follow it; copy the file to {path}"
    if not _lets_in(secrets_folder(), 0o111):
        return "in a closed folder", f"chmod g+x {secrets_folder()}"
    if not _lets_in(path, 0o444):
        return "closed to the gateway", f"chgrp {secrets_group()} {path} && chmod g+r {path}"
    return "there", ""


def _lets_in(path: Path, bits: int) -> bool:
    """Whether one of the permission bits holds for the gateway's user or its groups."""
    return checkout.has_access(path, GATEWAY_USER, (GATEWAY_USER, secrets_group()), bits)


def of_configuration(path: Path) -> tuple[str, str]:
    """What is found at a file of keys or users beside the configuration, and what to do when its container cannot read it."""
    if not path.exists():
        return "none", ""
    if checkout.is_readable_by_containers(path):
        return "readable by its container", ""
    return "closed to its container", f"chgrp {secrets_group()} {path} && chmod g+r {path}"


ADMIN_KEY = "admin.key"


def ensure_admin_key(config: Path) -> None:
    """Makes the key where there is none; never touches one that is there."""
    path = secrets_folder() / ADMIN_KEY
    if path.exists():
        return
    try:
        # Never open to others, not even for an instant.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"me-admin-{randomness.token_urlsafe(32)}\n")
        with contextlib.suppress(PermissionError):  # the folder is another group's: doctor tells what to do
            os.chown(path, -1, secrets_group())
        path.chmod(0o640)
    except OSError as error:
        # The cluster serves without it; only changes by API are refused.
        print_warning(f"no admin key could be made in {secrets_folder()}: {error}")
        return
    print_ok(f"{ADMIN_KEY} is new in the secrets folder; `{next_command('admin-key', config=config)}` prints it")


def read_admin_key() -> str:
    """Raises CliError."""
    try:
        return (secrets_folder() / ADMIN_KEY).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"there is no admin key to print: {error}. `make up` makes one.") from error


DAYS = 825
"""The longest that Apple's systems accept."""

REQUEST = """\
[req]
prompt = no
distinguished_name = name
x509_extensions = extensions
[name]
CN = {name}
[extensions]
subjectAltName = {alternatives}
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
"""
"""Whoever trusts this certificate trusts this server and nothing that its key signs."""


def certificate_path(cluster: Cluster) -> Path | None:
    """The certificate's file; None without TLS."""
    return secrets_folder() / cluster.gateway.tls.certificate if cluster.gateway.tls else None


def ensure_certificate(cluster: Cluster) -> None:
    """With TLS and neither certificate nor key in the secrets folder, makes a pair. Never touches files that exist."""
    names = list(of_certificate(cluster).values())
    if not names or any((secrets_folder() / name).exists() for name in names):
        return
    crt, key = (secrets_folder() / name for name in names)
    subjects = _subjects(cluster)
    try:
        with tempfile.TemporaryDirectory(dir=secrets_folder()) as made:
            _make(Path(made), cluster.name, subjects)
            for file, target in (("key", key), ("crt", crt)):
                (Path(made) / file).rename(target)
    except CommandFailed as error:
        raise CliError(f"openssl could not make a certificate: {error.last_line}", details=error.output) from error
    except OSError as error:
        raise CliError(f"no certificate could be made in {secrets_folder()}: {error}") from error
    print_warning(
        f"{from_checkout(crt)} is new and self-signed, for {', '.join(subjects)}; clients must be told to trust it, "
        "or put your own pair there"
    )


def is_self_signed(certificate: Path) -> bool:
    """Whether only those who have the file itself can trust it."""
    told = _openssl(certificate, "-subject", "-issuer", "-nameopt", "RFC2253")
    found = dict(line.split("=", 1) for line in told.splitlines() if "=" in line)
    return bool(found) and found.get("subject") == found.get("issuer")


def has_expired(certificate: Path) -> bool:
    """False also where openssl is missing and nobody can tell."""
    return "will expire" in _openssl(certificate, "-checkend", "0")


def host_name(certificate: Path) -> str:
    """The first name it is for; empty when that is a wildcard, an address, or not known. localhost wins."""
    names = re.findall(r"DNS:([A-Za-z0-9.-]+)", _openssl(certificate, "-ext", "subjectAltName"))
    return "localhost" if "localhost" in names else names[0] if names else ""


def _subjects(cluster: Cluster) -> list[str]:
    """Names and addresses under which this host may be asked."""
    listens = cluster.gateway.host
    own = [] if listens.is_unspecified else [str(listens)]
    return list(dict.fromkeys(["localhost", "127.0.0.1", host_info.host_name(), *own, *host_info.addresses()]))


def _make(folder: Path, name: str, subjects: list[str]) -> None:
    alternatives = ",".join(f"{'IP' if parse_address(one) else 'DNS'}:{one}" for one in subjects)
    request = folder / "request"
    request.write_text(REQUEST.format(name=name, alternatives=alternatives), encoding="ascii")
    command = ["openssl", "req", "-x509", "-config", str(request), "-days", str(DAYS), "-nodes"]
    command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    run([*command, "-keyout", str(folder / "key"), "-out", str(folder / "crt")], timeout_s=60)
    for file, mode in (("crt", 0o644), ("key", 0o640)):
        with contextlib.suppress(PermissionError):  # the folder is another group's: doctor tells what to do
            os.chown(folder / file, -1, secrets_group())
        (folder / file).chmod(mode)


def _openssl(certificate: Path, *arguments: str) -> str:
    """What openssl tells of a certificate; empty where it is missing or the file is no certificate."""
    if not shutil.which("openssl"):
        return ""
    try:
        return run(["openssl", "x509", "-noout", "-in", str(certificate), *arguments], timeout_s=20)
    except CommandFailed as error:
        return error.output if "-checkend" in arguments else ""
