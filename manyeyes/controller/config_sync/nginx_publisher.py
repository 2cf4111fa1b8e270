"""Keeps nginx's files in step with the cluster in force and the API keys, and sees that nginx takes them over.

Every change is one generation of files and one reload. nginx itself says which generation it runs on; one that it refuses stays
offered (a certificate may be what is missing) while nginx goes on with the one before.
"""

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import structlog

from manyeyes.config.credentials import ApiKeys
from manyeyes.config.placement import PlacedCluster
from manyeyes.controller import metrics
from manyeyes.controller.bounded import RequestFailed, bounded_request
from manyeyes.controller.supervision import record_failure
from manyeyes.render.nginx.files import build_generation, gateway_files
from manyeyes.render.nginx.naming import AS_WRITTEN, NginxPaths, PoolNaming

CURRENT, PROVEN = "current", "proven"


class GenerationStore:
    """The folder in which nginx is offered its files: every generation whole in a folder of its own, `current` a link to one.

        generations/NAME/   rendered files (manyeyes/render/nginx/files.py)
        current             -> the generation that is to be in force
        proven              -> the one that nginx was last seen to run on, for when it starts while `current` is refused

    A generation is on disk, complete and synced, before the link leads to it: a reader finds the old one or the new one, also
    after a kill -9 at any instant. nginx/start.sh reads it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def current(self) -> str:
        """The generation that is to be in force; empty before the first."""
        return self._target(CURRENT)

    @property
    def proven(self) -> str:
        """The generation last seen in force; empty before that."""
        return self._target(PROVEN)

    def publish(self, name: str, files: dict[str, str]) -> None:
        """Makes `files` the current generation. Raises OSError, and the one before stays."""
        generation = self.folder / "generations" / name
        if not generation.exists():
            self._write(generation, files)
        self._link(CURRENT, name)
        self._sweep()

    def mark_proven(self, name: str) -> None:
        """Remembers that nginx runs on this generation, if it is here. Raises OSError."""
        if name != self.proven and (self.folder / "generations" / name).is_dir():
            self._link(PROVEN, name)
            self._sweep()

    def _write(self, generation: Path, files: dict[str, str]) -> None:
        fresh = generation.with_name(f".{generation.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            fresh.mkdir(parents=True)
            fresh.parent.chmod(0o755)  # nginx reads it as a user of its own, whatever this one's umask is
            fresh.chmod(0o755)
            for file, text in files.items():
                with (fresh / file).open("w", encoding="utf-8") as opened:
                    opened.write(text)
                    opened.flush()
                    os.fsync(opened.fileno())
                    os.fchmod(opened.fileno(), 0o644)
            fresh.rename(generation)
        except OSError:
            shutil.rmtree(fresh, ignore_errors=True)
            raise

    def _link(self, link: str, name: str) -> None:
        fresh = self.folder / f".{link}.new"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(Path("generations") / name)
        fresh.replace(self.folder / link)

    def _target(self, link: str) -> str:
        with contextlib.suppress(OSError):
            return (self.folder / link).readlink().name
        return ""

    def _sweep(self) -> None:
        """Takes away generations that no link leads to, and what a kill left half-written."""
        for folder in (self.folder / "generations").iterdir():
            if folder.name not in (self.current, self.proven):
                shutil.rmtree(folder, ignore_errors=True)


log = structlog.get_logger()
ASK_PAUSE_S, QUIET_PAUSE_S, ASK_TIMEOUT_S = 0.3, 3.0, 2.0
LONGEST_REASON = 500


@dataclass(frozen=True)
class GenerationStatus:
    """What nginx says of its files. Empty where it did not answer."""

    generation: str = ""
    refused: str = ""
    reason: str = ""


class NginxPublisher:
    """Listens to the cluster in force (manyeyes/controller/config_sync/effective_config.py); `keys` and `naming` are set by whoever knows them."""

    def __init__(
        self, offered: GenerationStore, places: NginxPaths, gateway: str, emit_event: Callable[[str], None]
    ) -> None:
        self.keys = ApiKeys()
        self.naming: Callable[[PlacedCluster], PoolNaming] = lambda cluster: AS_WRITTEN
        self.offered = offered
        self.places = places
        self.gateway = gateway
        self.emit_event = emit_event
        self.status_seen = GenerationStatus()
        self.trouble = ""
        """Why nginx does not run on the newest files; empty while it does, or may still take them over."""
        self._cluster: PlacedCluster | None = None
        self._wanted = ""
        self._until_s: float | None = None
        """When names that are answered for a time only end."""
        self._unwritten: dict[str, str] | None = None
        self._since = 0.0
        self._changed = asyncio.Event()

    @property
    def is_current(self) -> bool:
        return bool(self._wanted) and self.status_seen.generation == self._wanted

    def status(self) -> dict[str, Any]:
        """For people: which generation is wanted, which runs, and why they differ."""
        return {
            "wanted": self._wanted,
            "in_force": self.status_seen.generation or None,
            "trouble": self.trouble or None,
        }

    def apply(self, cluster: PlacedCluster) -> None:
        """Offers what this cluster comes to, if it is not offered already."""
        self._cluster = cluster
        try:
            naming = self.naming(cluster)
            self._until_s = naming.until_s
            name, files = build_generation(gateway_files(cluster, self.keys, self.places, naming))
        except Exception:
            record_failure("gateway_files")
            self._in_trouble("its new files cannot be made; the controller's log says why")
            return
        if name == self._wanted:
            return
        self._wanted, self._unwritten, self._since, self.trouble = name, files, time.monotonic(), ""
        self._write(files)
        self._changed.set()

    def apply_again(self) -> None:
        """The same cluster, with other names known."""
        if self._cluster is not None:
            self.apply(self._cluster)

    async def follow(self) -> None:
        """Asks nginx which generation it runs on until cancelled: often while it has one to take over, and time to do so."""
        async with httpx.AsyncClient(timeout=ASK_TIMEOUT_S, trust_env=False) as client:
            while True:
                if self._until_s is not None and time.time() >= self._until_s:
                    self.apply_again()
                self.write_again()
                self.record_status(await _ask(client, self.gateway))
                self._changed.clear()
                pause_s = ASK_PAUSE_S if self._is_due else QUIET_PAUSE_S
                try:
                    async with asyncio.timeout(pause_s):
                        await self._changed.wait()
                except TimeoutError:
                    continue

    def write_again(self) -> None:
        """Offers what could not be written so far."""
        if self._unwritten is not None:
            self._write(self._unwritten)

    def _write(self, files: dict[str, str]) -> None:
        try:
            self.offered.publish(self._wanted, files)
        except OSError as error:
            self._in_trouble(f"its new files cannot be written: {error}")
        else:
            self._unwritten = None
            log.info("nginx_config_published", generation=self._wanted)

    def record_status(self, status: GenerationStatus) -> None:
        before, self.status_seen = self.status_seen, status
        if self.is_current:
            self._prove()
            if before.generation != status.generation:
                self.emit_event("the gateway runs on the configuration in force" + (" again" if self.trouble else ""))
            self.trouble = ""
        elif status.generation and status.refused == self._wanted:
            self._in_trouble(f"it refuses them and goes on with those before: {status.reason}")
        elif status.generation and time.monotonic() > self._since + self._deadline_s:
            self._in_trouble(f"it did not take them over within {self._deadline_s:g} s and goes on with those before")
        metrics.GATEWAY_BEHIND.set(not self.is_current)

    def _prove(self) -> None:
        try:
            self.offered.mark_proven(self._wanted)
        except OSError as error:
            log.error("nginx_config_write_failed", generation=self._wanted, error=str(error))

    def _in_trouble(self, reason: str) -> None:
        if reason != self.trouble:
            self.trouble = reason
            metrics.GATEWAY_REFUSALS.inc()
            self.emit_event(f"the gateway does not run on its new files: {reason}")

    @property
    def _is_due(self) -> bool:
        """nginx may take the newest files over any moment. One that is not there at all is not waited for so closely for ever."""
        if self.is_current or self.trouble:
            return False
        return self._cluster is None or time.monotonic() <= self._since + self._deadline_s

    @property
    def _deadline_s(self) -> float:
        assert self._cluster
        return self._cluster.controller.reload_timeout_s


class ReadOnlyPublisher(NginxPublisher):
    """On Kubernetes and Swarm nginx's files come with its container, so the controller writes none and asks nobody for them."""

    def status(self) -> dict[str, Any]:
        return {"wanted": None, "in_force": None, "trouble": None}

    def apply(self, cluster: PlacedCluster) -> None:
        self._cluster = cluster

    async def follow(self) -> None:
        await asyncio.Event().wait()


async def _ask(client: httpx.AsyncClient, gateway: str) -> GenerationStatus:
    try:
        generation = await bounded_request(client, "GET", f"{gateway}/generation", ASK_TIMEOUT_S)
        refused = await bounded_request(client, "GET", f"{gateway}/refused", ASK_TIMEOUT_S)
    except RequestFailed:
        return GenerationStatus()
    if generation.status != 200:
        return GenerationStatus()
    name, _, reason = refused.text.partition("\n") if refused.status == 200 else ("", "", "")
    return GenerationStatus(generation.text.strip(), name.strip(), " ".join(reason.split())[:LONGEST_REASON])
