"""The secrets folder: checks its files, and creates the admin key and a self-signed certificate if they are missing."""

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
from manyeyes.config.checkout import PAGE_KEY, from_checkout, secrets_folder, secrets_group
from manyeyes.config.cluster import Cluster
from manyeyes.config.fields import parse_address

GATEWAY_USER = 101
"""User and group of nginx in its image. Compose adds the group of the secrets folder."""


def list_pool_secrets(cluster: Cluster) -> dict[str, str]:
    """Returns {setting: file} of remote pools and endpoints, with file names inside the secrets folder."""
    files: dict[str, str] = {}
    for pool in cluster.pools:
        if pool.remote and pool.remote.key_file:
            files[f"pools[{pool.name}].remote.key_file"] = pool.remote.key_file
        if pool.remote and pool.remote.ca_file:
            files[f"pools[{pool.name}].remote.ca_file"] = pool.remote.ca_file
    for engine in cluster.listed_engines:
        for name in engine.endpoint.secret_files if engine.endpoint else ():
            files[f"engines[{engine.name}].endpoint ({name})"] = name
    return files


def list_alerting_secrets(cluster: Cluster) -> dict[str, str]:
    """Returns {setting: file} of Alertmanager's receivers."""
    alerting = cluster.monitoring.alerting
    files = [
        (f"webhooks[{number}].url_file", webhook.url_file) for number, webhook in enumerate(alerting.webhooks, start=1)
    ]
    files += [
        (f"emails[{number}].password_file", email.password_file)
        for number, email in enumerate(alerting.emails, start=1)
    ]
    return {f"monitoring.alerting.{place}": name for place, name in files if name}


def identify_alerting_files(cluster: Cluster) -> str:
    """Returns a text that changes when a file of Alertmanager's receivers is replaced: its mount shows the old file
    until the container is recreated. Empty without such files."""
    paths = [secrets_folder() / name for name in list_alerting_secrets(cluster).values()]
    return " ".join(f"{path.name}:{path.stat().st_ino}" for path in paths if path.exists())


def list_certificate_files(cluster: Cluster) -> dict[str, str]:
    """Returns {setting: file} of the gateway's certificate; empty without TLS."""
    tls = cluster.gateway.tls
    return {"gateway.tls.certificate": tls.certificate, "gateway.tls.key": tls.key} if tls else {}


def state(name: str) -> tuple[str, str]:
    """Returns what was found at `name`, and how to fix it; the fix is empty if the gateway can read the file."""
    path = secrets_folder() / name
    if not path.is_file():
        return "missing", f"Put the file there: {path}"
    if not path.resolve().is_relative_to(secrets_folder().resolve()):
        return "a link out of the folder", f"Containers cannot follow the link. Copy the file to {path}"
    if not _gateway_has_permission(secrets_folder(), 0o111):
        return "in an unreadable folder", f"chmod g+x {secrets_folder()}"
    if not _gateway_has_permission(path, 0o444):
        return "not readable by the gateway", f"chgrp {secrets_group()} {path} && chmod g+r {path}"
    return "present", ""


def _gateway_has_permission(path: Path, bits: int) -> bool:
    """Whether the gateway's user or its groups have one of the permission bits."""
    return checkout.has_access(path, GATEWAY_USER, (GATEWAY_USER, secrets_group()), bits)


def check_container_access(path: Path) -> tuple[str, str]:
    """Returns what was found at the API keys file or the users file, and how to fix it if its container cannot read
    it."""
    if not path.exists():
        return "none", ""
    if checkout.is_readable_by_containers(path):
        return "readable by its container", ""
    return "not readable by its container", f"chgrp {secrets_group()} {path} && chmod g+r {path}"


ADMIN_KEY = "admin.key"


def ensure_admin_key(config: Path) -> None:
    """Creates the admin key if it does not exist."""
    if not _create_key(ADMIN_KEY, "me-admin-"):
        return
    print_ok(f"created {ADMIN_KEY} in the secrets folder; `{next_command('admin-key', config=config)}` prints it")


def ensure_page_key() -> None:
    """Creates the key that opens the gateway's internal port to the page, if it does not exist."""
    _create_key(PAGE_KEY, "me-page-")


def _create_key(name: str, prefix: str) -> bool:
    """Returns whether a new key was created."""
    path = secrets_folder() / name
    if path.exists():
        return False
    try:
        # The file is private from the moment it exists.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{prefix}{randomness.token_urlsafe(32)}\n")
        with contextlib.suppress(PermissionError):  # the folder has another group: doctor reports how to fix it
            os.chown(path, -1, secrets_group())
        path.chmod(0o640)
    except OSError as error:
        # The cluster serves requests without it: without the admin key, changes through the API are rejected; without
        # the page key, the page works if no API key is required.
        print_warning(f"{name} could not be created in {secrets_folder()}: {error}")
        return False
    return True


def read_admin_key() -> str:
    """Returns the admin key. Raises CliError."""
    try:
        return (secrets_folder() / ADMIN_KEY).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"the admin key cannot be read: {error}. `make up` creates it.") from error


DAYS = 825
"""Maximum lifetime of a certificate that Apple's systems accept."""

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
"""CA:FALSE: a client that trusts this certificate does not trust certificates that its key signs."""


def certificate_path(cluster: Cluster) -> Path | None:
    """Returns the path of the certificate; None without TLS."""
    return secrets_folder() / cluster.gateway.tls.certificate if cluster.gateway.tls else None


def ensure_certificate(cluster: Cluster) -> None:
    """Creates a self-signed certificate and key, if TLS is on and neither file exists. Raises CliError."""
    names = list(list_certificate_files(cluster).values())
    if not names or any((secrets_folder() / name).exists() for name in names):
        return
    crt, key = (secrets_folder() / name for name in names)
    subjects = _subjects(cluster)
    try:
        with tempfile.TemporaryDirectory(dir=secrets_folder()) as temporary:
            _create_pair(Path(temporary), cluster.name, subjects)
            for file, target in (("key", key), ("crt", crt)):
                (Path(temporary) / file).rename(target)
    except CommandFailed as error:
        raise CliError(f"openssl could not create a certificate: {error.last_line}", details=error.output) from error
    except OSError as error:
        raise CliError(f"no certificate could be created in {secrets_folder()}: {error}") from error
    print_warning(
        f"{from_checkout(crt)} is new and self-signed, for {', '.join(subjects)}. Configure clients to trust it, "
        "or replace both files with your own."
    )


def is_self_signed(certificate: Path) -> bool:
    """Whether issuer and subject of the certificate are the same."""
    output = _openssl(certificate, "-subject", "-issuer", "-nameopt", "RFC2253")
    fields = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
    return bool(fields) and fields.get("subject") == fields.get("issuer")


def has_expired(certificate: Path) -> bool:
    """Whether the certificate has expired; False if openssl is missing."""
    return "will expire" in _openssl(certificate, "-checkend", "0")


def host_name(certificate: Path) -> str:
    """Returns localhost if the certificate has it, else its first name; empty for a wildcard, an address or an
    error."""
    names = re.findall(r"DNS:([A-Za-z0-9.-]+)", _openssl(certificate, "-ext", "subjectAltName"))
    return "localhost" if "localhost" in names else names[0] if names else ""


def _subjects(cluster: Cluster) -> list[str]:
    """Returns the names and addresses of this host for the certificate."""
    host = cluster.gateway.host
    listen_addresses = [] if host.is_unspecified else [str(host)]
    return list(
        dict.fromkeys(["localhost", "127.0.0.1", host_info.host_name(), *listen_addresses, *host_info.addresses()])
    )


def _create_pair(folder: Path, name: str, subjects: list[str]) -> None:
    alternatives = ",".join(f"{'IP' if parse_address(subject) else 'DNS'}:{subject}" for subject in subjects)
    request = folder / "request"
    request.write_text(REQUEST.format(name=name, alternatives=alternatives), encoding="ascii")
    command = ["openssl", "req", "-x509", "-config", str(request), "-days", str(DAYS), "-nodes"]
    command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    run([*command, "-keyout", str(folder / "key"), "-out", str(folder / "crt")], timeout_s=60)
    for file, mode in (("crt", 0o644), ("key", 0o640)):
        with contextlib.suppress(PermissionError):  # the folder has another group: doctor reports how to fix it
            os.chown(folder / file, -1, secrets_group())
        (folder / file).chmod(mode)


def _openssl(certificate: Path, *arguments: str) -> str:
    """Returns openssl's output about a certificate; empty if openssl is missing or the file is not a certificate."""
    if not shutil.which("openssl"):
        return ""
    try:
        return run(["openssl", "x509", "-noout", "-in", str(certificate), *arguments], timeout_s=20)
    except CommandFailed as error:
        return error.output if "-checkend" in arguments else ""
