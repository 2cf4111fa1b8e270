"""The gateway's certificate: a self-signed pair where the operator has none, and what is in the one that is there."""

import contextlib
import os
import re
import shutil
import tempfile
from ipaddress import ip_address
from pathlib import Path

from manyeyes.cli import host_info, secrets
from manyeyes.cli.errors import CliError
from manyeyes.cli.process import CommandFailed, run
from manyeyes.cli.terminal import print_warning
from manyeyes.config.checkout import ROOT
from manyeyes.config.cluster import Cluster

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


def path(cluster: Cluster) -> Path | None:
    """The certificate's file; None without TLS."""
    return secrets.folder() / cluster.gateway.tls.certificate if cluster.gateway.tls else None


def ensure(cluster: Cluster) -> None:
    """With TLS and neither certificate nor key in the secrets folder, makes a pair. Never touches files that exist."""
    names = list(secrets.of_certificate(cluster).values())
    if not names or any((secrets.folder() / name).exists() for name in names):
        return
    crt, key = (secrets.folder() / name for name in names)
    subjects = _subjects(cluster)
    try:
        with tempfile.TemporaryDirectory(dir=secrets.folder()) as made:
            _make(Path(made), cluster.name, subjects)
            for file, target in (("key", key), ("crt", crt)):
                (Path(made) / file).rename(target)
    except CommandFailed as error:
        raise CliError(f"openssl could not make a certificate: {error.last_line}", details=error.output) from error
    except OSError as error:
        raise CliError(f"no certificate could be made in {secrets.folder()}: {error}") from error
    print_warning(
        f"{shown(crt)} is new and self-signed, for {', '.join(subjects)}; clients must be told to trust it, "
        "or put your own pair there"
    )


def shown(file: Path) -> Path:
    """As people type it: from the repository root where it is inside."""
    return file.relative_to(ROOT) if file.is_relative_to(ROOT) else file


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
    alternatives = ",".join(f"{'IP' if _is_address(one) else 'DNS'}:{one}" for one in subjects)
    request = folder / "request"
    request.write_text(REQUEST.format(name=name, alternatives=alternatives), encoding="ascii")
    command = ["openssl", "req", "-x509", "-config", str(request), "-days", str(DAYS), "-nodes"]
    command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    run([*command, "-keyout", str(folder / "key"), "-out", str(folder / "crt")], timeout_s=60)
    for file, mode in (("crt", 0o644), ("key", 0o640)):
        with contextlib.suppress(PermissionError):  # the folder is another group's: doctor tells what to do
            os.chown(folder / file, -1, secrets.group())
        (folder / file).chmod(mode)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _openssl(certificate: Path, *arguments: str) -> str:
    """What openssl tells of a certificate; empty where it is missing or the file is no certificate."""
    if not shutil.which("openssl"):
        return ""
    try:
        return run(["openssl", "x509", "-noout", "-in", str(certificate), *arguments], timeout_s=20)
    except CommandFailed as error:
        return error.output if "-checkend" in arguments else ""
