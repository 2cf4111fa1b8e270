"""`manyeyes backup|restore`: what cannot be made again, in one file. Weights, caches, metrics and images are not in it."""

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from manyeyes.atomic_write import atomic_copy, atomic_write
from manyeyes.cli import archive, docker_install, env_file, secrets, started_services
from manyeyes.cli.archive import ArchiveMember, BackupInfo, BadArchive
from manyeyes.cli.compose import Compose
from manyeyes.cli.errors import CliError
from manyeyes.cli.invocation import next_command
from manyeyes.cli.process import CommandFailed, run
from manyeyes.cli.terminal import print_ok, print_warning, step
from manyeyes.cli.volumes import Volumes
from manyeyes.config import checkout
from manyeyes.config.checkout import ROOT
from manyeyes.config.cluster import Cluster
from manyeyes.config.loader import ConfigError, keys_path, load, users_path

VOLUMES = ("state", "grafana")
NOT_KEPT = (".gitignore", "README.md", ".gitkeep")


def backup(config: Path, out: str) -> Path:
    """Also of a running cluster: each file of the state is replaced at once; Grafana's database is copied while it is paused."""
    written = started_services.usable_file(config)  # a wrong one could not be restored
    cluster = load(written)
    docker_install.ensure()
    file = Path(out) if out else ROOT / "build/backup" / f"{cluster.name}-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz"
    file.parent.mkdir(parents=True, exist_ok=True)
    at = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    with tempfile.TemporaryDirectory() as folder, step("backing up") as current:
        members = _files(config, written, cluster, Path(folder))
        for volume, path in _volumes(cluster, Path(folder)):
            members[f"volumes/{volume}.tar"] = ArchiveMember(path, 0o600)
        archive.write(file, BackupInfo(cluster.name, at), members)
        current.outcome = f"{len(members)} files, {file.stat().st_size / 1e6:.1f} MB: {file}"
    print_warning("it holds keys and certificates: keep it where only you can read it")
    return file


def restore(config: Path, source: str) -> None:
    """Everything in the archive, in place of what is here; files that were here and differ are kept beside it. Raises Trouble."""
    if not source:
        raise CliError("which backup? Name its file: build/backup/....tar.gz")
    with tempfile.TemporaryDirectory() as folder:
        try:
            about, members = archive.read(Path(source), Path(folder))
            names = json.loads(members["config/names.json"].path.read_text())
            cluster = load(members["config/cluster.yaml"].path)
        except (BadArchive, KeyError, ValueError, ConfigError) as error:
            raise CliError(f"{source} is not taken: {error}. Nothing was changed.") from error
        docker_install.ensure()
        if Compose(about.project).runs():
            raise CliError(
                f"the cluster '{about.project}' runs: {next_command('down', config=config)}, then this again. Nothing was changed."
            )
        with step(f"restoring '{about.project}' of {about.at}") as current:
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
                    _install(member, secrets.folder() / name.removeprefix("secrets/"), stamp, secrets.group())
            if "env" in members:
                _install(members["env"], env_file.PATH, stamp)
            volumes = Volumes(about.project, cluster.images.controller)
            for name, member in members.items():
                if name.startswith("volumes/"):
                    volumes.put(name.removeprefix("volumes/").removesuffix(".tar"), member.path)
            current.outcome = f"'{about.project}' is as it was at {about.at}: {next_command('up', config=config)}"
    if "users" not in names and not users_path(config, cluster).exists():
        print_warning(
            "this backup is of a version that left out the users of the page, so that nobody has to log in. "
            "If there were users, add each with `manyeyes user NAME` before the cluster starts."
        )


def _files(config: Path, written: Path, cluster: Cluster, folder: Path) -> dict[str, ArchiveMember]:
    keys = keys_path(config, cluster)
    users = users_path(config, cluster)
    names = folder / "names.json"
    names.write_text(json.dumps({"config": config.name, "keys": keys.name, "users": users.name}))
    found = {"config/names.json": names, "config/cluster.yaml": written}
    if keys.exists():
        found["config/keys.yaml"] = keys
    if users.exists():
        found["config/users.yaml"] = users
    if secrets.folder().is_dir():
        for path in sorted(secrets.folder().iterdir()):
            if path.is_file() and path.name not in NOT_KEPT:
                found[f"secrets/{path.name}"] = path
    if own := env_file.own_lines():
        env = folder / "env"
        env.write_text(own)
        env.chmod(0o600)
        found["env"] = env
    try:
        for path in found.values():
            path.open("rb").close()
        return {name: ArchiveMember(path, path.stat().st_mode & 0o777) for name, path in found.items()}
    except OSError as error:
        raise CliError(f"{error.filename} cannot be read: {error.strerror}") from error


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
    """Nothing is written meanwhile. Where it does not run there is nothing to pause."""
    try:
        run(["docker", "pause", container], timeout_s=30)
    except CommandFailed:
        yield
        return
    try:
        yield
    finally:
        run(["docker", "unpause", container], timeout_s=30)


def _install(member: ArchiveMember, target: Path, stamp: str, group: int | None = None) -> None:
    """Whole or not at all, never open to more than it was; what was there and differs is kept beside it."""
    if target.exists():
        if target.read_bytes() == member.path.read_bytes():
            return
        aside = target.with_name(f"{target.name}.before-{stamp}")
        atomic_copy(target, aside)
        print_ok(f"{target.name} was another one here: kept as {aside.name}")
    target.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(target, member.path.read_bytes(), member.mode if group is None else 0o600)
    if group is not None:
        with contextlib.suppress(PermissionError):
            os.chown(target, -1, group)
        target.chmod(member.mode)
