"""`manyeyes backup|restore`: saves all data that cannot be recreated in one file, and restores it.

Model weights, caches, metrics and images are not included.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from docker.errors import APIError

from manyeyes.atomic_write import atomic_copy, atomic_write
from manyeyes.cli import docker_install, env_file, secrets, started_services
from manyeyes.cli.compose import Compose
from manyeyes.cli.docker_api import docker_client
from manyeyes.cli.invocation import next_command
from manyeyes.cli.terminal import CliError, print_ok, print_warning, step
from manyeyes.cli.volume_copies import Volumes
from manyeyes.config import checkout
from manyeyes.config.checkout import ROOT, secrets_folder, secrets_group
from manyeyes.config.cluster import Cluster
from manyeyes.config.loader import ConfigError, keys_path, load, users_path

FORMAT = 1
MANIFEST = "manifest.json"
MEMBER = re.compile(
    r"^(config/(cluster|keys|users)\.yaml|config/names\.json|env|secrets/[A-Za-z0-9][A-Za-z0-9._-]*|volumes/[a-z]+\.tar)$"
)


class BadArchive(Exception):
    """The file is not a complete backup; the text gives the reason."""


@dataclass(frozen=True)
class ArchiveMember:
    """One file of the archive, with its permission bits."""

    path: Path
    mode: int


@dataclass(frozen=True)
class BackupInfo:
    """The cluster and the time of a backup."""

    project: str
    at: str


def write_archive(file: Path, backup_info: BackupInfo, members: Mapping[str, ArchiveMember]) -> str:
    """Writes `file` atomically, readable only by its owner. Returns its checksum, which is also written to a second
    file."""
    partial = file.with_name(f"{file.name}.part")
    partial.touch(0o600)
    partial.chmod(0o600)
    checksums = {
        name: {"sha256": _checksum(member.path), "mode": member.mode} for name, member in sorted(members.items())
    }
    manifest = {"format": FORMAT, "project": backup_info.project, "at": backup_info.at, "members": checksums}
    with tarfile.open(partial, "w:gz", compresslevel=6) as tar:
        text = json.dumps(manifest, indent=1).encode()
        entry = tarfile.TarInfo(MANIFEST)
        entry.size, entry.mode = len(text), 0o600
        tar.addfile(entry, io.BytesIO(text))
        for name, member in sorted(members.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = member.path.stat().st_size, member.mode
            with member.path.open("rb") as content:
                tar.addfile(entry, content)
    checksum = _checksum(partial)
    partial.replace(file)
    checksum_file(file).write_text(f"{checksum}  {file.name}\n")
    return checksum


def checksum_file(file: Path) -> Path:
    """Returns the path of the archive's checksum file."""
    return file.with_name(f"{file.name}.sha256")


def read_archive(file: Path, folder: Path) -> tuple[BackupInfo, dict[str, ArchiveMember]]:
    """Unpacks the archive into `folder` and checks all checksums. After BadArchive, `folder` must not be used."""
    try:
        if checksum_file(file).exists() and checksum_file(file).read_text().split()[:1] != [_checksum(file)]:
            raise BadArchive(f"its checksum differs from {checksum_file(file).name}")
        with tarfile.open(file, "r:gz") as tar:
            return _unpack(tar, folder)
    except FileNotFoundError:
        raise BadArchive("the file does not exist") from None
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        raise BadArchive(f"it is truncated or not a backup: {error}") from error


def _unpack(tar: tarfile.TarFile, folder: Path) -> tuple[BackupInfo, dict[str, ArchiveMember]]:
    first = tar.next()
    stream = tar.extractfile(first) if first and first.name == MANIFEST and first.isreg() else None
    if stream is None:
        raise BadArchive("it does not start with a list of its members")
    manifest = json.load(stream)
    if manifest["format"] != FORMAT:
        raise BadArchive(f"its format is {manifest['format']}, but this version reads format {FORMAT}")
    checksums = manifest["members"]
    members: dict[str, ArchiveMember] = {}
    while entry := tar.next():
        if entry.name not in checksums or not entry.isreg() or not MEMBER.match(entry.name):
            raise BadArchive(f"{entry.name[:100]!r} is not part of a backup")
        target = folder / entry.name
        target.parent.mkdir(parents=True, exist_ok=True)
        content = tar.extractfile(entry)
        assert content
        with target.open("wb") as file:
            while block := content.read(1 << 20):
                file.write(block)
        if _checksum(target) != checksums[entry.name]["sha256"]:
            raise BadArchive(f"{entry.name} is damaged")
        members[entry.name] = ArchiveMember(target, int(checksums[entry.name]["mode"]) & 0o777)
    if missing := sorted(set(checksums) - set(members)):
        raise BadArchive(f"{missing[0]} is missing")
    return BackupInfo(str(manifest["project"]), str(manifest["at"])), members


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


VOLUMES = ("state", "grafana")
SKIPPED_SECRETS = (".gitignore", "README.md", ".gitkeep")


def backup(config: Path, out: str) -> Path:
    """Writes a backup and returns its path. The cluster may run: state files are replaced atomically, and Grafana is
    paused."""
    config_file = started_services.usable_file(config)  # an invalid configuration could not be restored
    cluster = load(config_file)
    docker_install.ensure()
    file = Path(out) if out else ROOT / "build/backup" / f"{cluster.name}-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz"
    file.parent.mkdir(parents=True, exist_ok=True)
    time_of_backup = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    with tempfile.TemporaryDirectory() as folder, step("backing up") as current:
        members = _files(config, config_file, cluster, Path(folder))
        for volume, path in _volumes(cluster, Path(folder)):
            members[f"volumes/{volume}.tar"] = ArchiveMember(path, 0o600)
        write_archive(file, BackupInfo(cluster.name, time_of_backup), members)
        current.outcome = f"{len(members)} files, {file.stat().st_size / 1e6:.1f} MB: {file}"
    print_warning("the backup contains keys and certificates: store it where only you can read it")
    return file


def restore(config: Path, source: str) -> None:
    """Restores all files and volumes of the archive. Existing files that differ are copied first. Raises CliError."""
    if not source:
        raise CliError("no backup file was given. Name it, for example: build/backup/NAME.tar.gz")
    with tempfile.TemporaryDirectory() as folder:
        try:
            backup_info, members = read_archive(Path(source), Path(folder))
            names = json.loads(members["config/names.json"].path.read_text())
            cluster = load(members["config/cluster.yaml"].path)
        except (BadArchive, KeyError, ValueError, ConfigError) as error:
            raise CliError(f"{source} cannot be restored: {error}. Nothing was changed.") from error
        docker_install.ensure()
        if Compose(backup_info.project).runs():
            raise CliError(
                f"the cluster '{backup_info.project}' is running, and nothing was changed. "
                f"Run `{next_command('down', config=config)}`, then try again."
            )
        with step(f"restoring '{backup_info.project}' of {backup_info.at}") as current:
            stamp = time.strftime("%Y%m%d-%H%M%S")
            _install(members["config/cluster.yaml"], config, stamp)
            if "config/keys.yaml" in members:
                _install(members["config/keys.yaml"], config.parent / names["keys"], stamp)
                checkout.grant_container_access(config.parent / names["keys"])
            if "config/users.yaml" in members:
                _install(members["config/users.yaml"], users_path(config, cluster), stamp)
                checkout.grant_container_access(users_path(config, cluster))
            for name, member in members.items():
                if name.startswith("secrets/"):
                    _install(member, secrets_folder() / name.removeprefix("secrets/"), stamp, secrets_group())
            if "env" in members:
                _install(members["env"], env_file.PATH, stamp)
            volumes = Volumes(backup_info.project, cluster.images.controller)
            for name, member in members.items():
                if name.startswith("volumes/"):
                    volumes.put(name.removeprefix("volumes/").removesuffix(".tar"), member.path)
            current.outcome = (
                f"restored '{backup_info.project}' of {backup_info.at}; `{next_command('up', config=config)}` starts it"
            )
    if "users" not in names and not users_path(config, cluster).exists():
        print_warning(
            "this backup is from a version that did not save the users of the web page, so no login is required. "
            "If there were users, add each with `manyeyes user NAME` before the cluster starts."
        )


def _files(config: Path, config_file: Path, cluster: Cluster, folder: Path) -> dict[str, ArchiveMember]:
    keys = keys_path(config, cluster)
    users = users_path(config, cluster)
    names = folder / "names.json"
    names.write_text(json.dumps({"config": config.name, "keys": keys.name, "users": users.name}))
    paths = {"config/names.json": names, "config/cluster.yaml": config_file}
    if keys.exists():
        paths["config/keys.yaml"] = keys
    if users.exists():
        paths["config/users.yaml"] = users
    if secrets_folder().is_dir():
        for path in sorted(secrets_folder().iterdir()):
            if path.name not in SKIPPED_SECRETS:
                paths[f"secrets/{path.name}"] = path
    _reject_incomplete(cluster, paths)
    if operator_lines := env_file.own_lines():
        env = folder / "env"
        env.write_text(operator_lines)
        env.chmod(0o600)
        paths["env"] = env
    try:
        for path in paths.values():
            path.open("rb").close()
        return {name: ArchiveMember(path, path.stat().st_mode & 0o777) for name, path in paths.items()}
    except OSError as error:
        raise CliError(f"{error.filename} cannot be read: {error.strerror}") from error


def _reject_incomplete(cluster: Cluster, paths: Mapping[str, Path]) -> None:
    """Raises CliError for an entry of the secrets folder that a restore would refuse, and for a missing file."""
    problems = [
        f"{path}: a backup has only files with plain names. Move it out of the secrets folder, or rename it."
        for name, path in paths.items()
        if not path.is_file() or not MEMBER.match(name)
    ]
    certificates = secrets.list_certificate_files(cluster)
    if not any(f"secrets/{name}" in paths for name in certificates.values()):
        certificates = {}  # `make up` creates the pair
    needed = secrets.list_pool_secrets(cluster) | secrets.list_alerting_secrets(cluster) | certificates
    problems += [
        f"{setting}: secrets/{name} is missing, so a restored cluster would not start. Put the file there."
        for setting, name in needed.items()
        if f"secrets/{name}" not in paths
    ]
    if problems:
        raise CliError(*problems)


def _volumes(cluster: Cluster, folder: Path) -> Iterator[tuple[str, Path]]:
    volumes = Volumes(cluster.name, cluster.images.controller)
    for volume in VOLUMES:
        if not volumes.exists(volume):
            continue
        with _paused(f"{cluster.name}-grafana-1") if volume == "grafana" else contextlib.nullcontext():
            volumes.save(volume, folder / f"{volume}.tar")
        yield volume, folder / f"{volume}.tar"


@contextlib.contextmanager
def _paused(container: str) -> Iterator[None]:
    """Pauses the container, so that it does not write, if it runs."""
    with docker_client() as client:
        try:
            client.api.pause(container)
        except APIError:  # the container does not run
            yield
            return
        try:
            yield
        finally:
            client.api.unpause(container)


def _install(member: ArchiveMember, target: Path, stamp: str, group: int | None = None) -> None:
    """Writes the file atomically and with its original permissions. An existing file that differs is copied first."""
    if target.exists():
        if target.read_bytes() == member.path.read_bytes():
            return
        previous = target.with_name(f"{target.name}.before-{stamp}")
        atomic_copy(target, previous)
        print_ok(f"{target.name} was replaced; the previous file is {previous.name}")
    target.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(target, member.path.read_bytes(), member.mode if group is None else 0o600)
    if group is not None:
        with contextlib.suppress(PermissionError):
            os.chown(target, -1, group)
        target.chmod(member.mode)
