"""Publishes nginx's files whenever the effective cluster or the API keys change, and checks that nginx loads them.

Every change is one generation of files and one reload. nginx reports which generation it runs. A generation that nginx
refuses stays published (only a certificate may be missing), while nginx continues with the previous generation.
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
    """The folder with nginx's files: each generation is a folder, and `current` is a link to one of them.

        generations/NAME/   rendered files (manyeyes/render/nginx/files.py)
        current             -> the generation that nginx should run
        proven              -> the generation that nginx last ran, used when it starts while `current` is refused

    A generation is complete and synced to disk before the link points to it. A reader finds the old or the new
    generation, also after a kill -9 at any time. nginx/start.sh reads this folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def current(self) -> str:
        """The generation that nginx should run; empty before the first."""
        return self._target(CURRENT)

    @property
    def proven(self) -> str:
        """The generation that nginx last ran; empty before the first."""
        return self._target(PROVEN)

    def publish(self, name: str, files: dict[str, str]) -> None:
        """Makes `files` the current generation. Raises OSError; then the previous generation stays current."""
        generation = self.folder / "generations" / name
        if not generation.exists():
            self._write(generation, files)
        self._link(CURRENT, name)
        self._sweep()

    def mark_proven(self, name: str) -> None:
        """Records that nginx runs this generation, if it exists here. Raises OSError."""
        if name != self.proven and (self.folder / "generations" / name).is_dir():
            self._link(PROVEN, name)
            self._sweep()

    def _write(self, generation: Path, files: dict[str, str]) -> None:
        fresh = generation.with_name(f".{generation.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            fresh.mkdir(parents=True)
            fresh.parent.chmod(0o755)  # nginx reads it as another user, so the umask of this process must not apply
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
        """Deletes generations that no link points to, and incomplete folders left by a kill."""
        for folder in (self.folder / "generations").iterdir():
            if folder.name not in (self.current, self.proven):
                shutil.rmtree(folder, ignore_errors=True)


log = structlog.get_logger()
DUE_PAUSE_S, QUIET_PAUSE_S, STATUS_TIMEOUT_S = 0.3, 3.0, 2.0
LONGEST_REASON = 500


@dataclass(frozen=True)
class GenerationStatus:
    """The generation that nginx reports. Empty when nginx did not respond."""

    generation: str = ""
    refused: str = ""
    reason: str = ""


class NginxPublisher:
    """Listens to the effective cluster (manyeyes/controller/config_sync/effective_config.py).

    The caller sets `keys` and `naming`.
    """

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
        self.problem = ""
        """Why nginx does not run the newest generation; empty while it does, or may still load it."""
        self._cluster: PlacedCluster | None = None
        self._desired = ""
        self._until_s: float | None = None
        """When the next former pool name expires, in seconds since 1970."""
        self._unwritten: dict[str, str] | None = None
        self._follows = False
        self._since = 0.0
        self._changed = asyncio.Event()

    @property
    def is_current(self) -> bool:
        return bool(self._desired) and self.status_seen.generation == self._desired

    def status(self) -> dict[str, Any]:
        """Reports the published generation, the generation that nginx runs, and why they differ."""
        return {
            "desired": self._desired,
            "active": self.status_seen.generation or None,
            "problem": self.problem or None,
        }

    def apply(self, cluster: PlacedCluster) -> None:
        """Publishes the files of this cluster if they differ from the published generation."""
        self._cluster = cluster
        try:
            naming = self.naming(cluster)
            self._until_s = naming.until_s
            name, files = build_generation(gateway_files(cluster, self.keys, self.places, naming))
        except Exception:
            record_failure("gateway_files")
            self._report_problem("its files could not be rendered; see the controller's log")
            return
        if name == self._desired:
            return
        self._desired, self._unwritten, self._since, self.problem = name, files, time.monotonic(), ""
        if self._follows:
            self._changed.set()  # `follow` writes the files in a thread
        else:
            self.write_again()

    def apply_again(self) -> None:
        """Publishes the same cluster again, because the known names changed."""
        if self._cluster is not None:
            self.apply(self._cluster)

    async def follow(self) -> None:
        """Polls nginx's generation until cancelled, more often while nginx is expected to load a new generation."""
        self._follows = True
        async with httpx.AsyncClient(timeout=STATUS_TIMEOUT_S, trust_env=False) as client:
            while True:
                self._changed.clear()
                if self._until_s is not None and time.time() >= self._until_s:
                    self.apply_again()
                # In threads: a hanging disk must not block DNS.
                if (files := self._unwritten) is not None:
                    self._record_write(files, await asyncio.to_thread(self._publish, self._desired, files))
                self.record_status(await _fetch_status(client, self.gateway))
                if self.is_current:
                    await asyncio.to_thread(self.prove)
                pause_s = DUE_PAUSE_S if self._is_due else QUIET_PAUSE_S
                try:
                    async with asyncio.timeout(pause_s):
                        await self._changed.wait()
                except TimeoutError:
                    continue

    def write_again(self) -> None:
        """Publishes files that could not be written before."""
        if self._unwritten is not None:
            self._record_write(self._unwritten, self._publish(self._desired, self._unwritten))

    def _publish(self, name: str, files: dict[str, str]) -> str:
        """Publishes the files. Returns the reason when that fails, else an empty string."""
        try:
            self.offered.publish(name, files)
        except OSError as error:
            return str(error) or type(error).__name__
        log.info("nginx_config_published", generation=name)
        return ""

    def _record_write(self, files: dict[str, str], error: str) -> None:
        if self._unwritten is not files:
            return  # newer files replaced them during the write
        if error:
            self._report_problem(f"its files could not be written: {error}")
        else:
            self._unwritten = None

    def record_status(self, status: GenerationStatus) -> None:
        before, self.status_seen = self.status_seen, status
        if self.is_current:
            if before.generation != status.generation:
                self.emit_event("the gateway runs the active configuration" + (" again" if self.problem else ""))
            self.problem = ""
        elif status.generation and status.refused == self._desired:
            self._report_problem(f"nginx refused it and continues with the previous configuration: {status.reason}")
        elif status.generation and time.monotonic() > self._since + self._deadline_s:
            self._report_problem(
                f"nginx did not load it within {self._deadline_s:g} s and continues with the previous configuration"
            )
        metrics.GATEWAY_BEHIND.set(not self.is_current)

    def prove(self) -> None:
        """Records on disk that nginx runs the generation that it reports."""
        name = self.status_seen.generation
        try:
            self.offered.mark_proven(name)
        except OSError as error:
            log.error("nginx_config_write_failed", generation=name, error=str(error))

    def _report_problem(self, reason: str) -> None:
        if reason != self.problem:
            self.problem = reason
            metrics.GATEWAY_REFUSALS.inc()
            self.emit_event(f"the gateway does not run its newest configuration: {reason}")

    @property
    def _is_due(self) -> bool:
        """Whether nginx may load the newest generation at any moment.

        This is limited in time, because nginx may be down.
        """
        if self.is_current or self.problem:
            return False
        return self._cluster is None or time.monotonic() <= self._since + self._deadline_s

    @property
    def _deadline_s(self) -> float:
        assert self._cluster
        return self._cluster.controller.reload_timeout_s


class ReadOnlyPublisher(NginxPublisher):
    """Publishes nothing: on Kubernetes and Swarm, nginx's files come with its container."""

    def status(self) -> dict[str, Any]:
        return {"desired": None, "active": None, "problem": None}

    def apply(self, cluster: PlacedCluster) -> None:
        self._cluster = cluster

    async def follow(self) -> None:
        await asyncio.Event().wait()


async def _fetch_status(client: httpx.AsyncClient, gateway: str) -> GenerationStatus:
    try:
        generation = await bounded_request(client, "GET", f"{gateway}/generation", STATUS_TIMEOUT_S)
        refused = await bounded_request(client, "GET", f"{gateway}/refused", STATUS_TIMEOUT_S)
    except RequestFailed:
        return GenerationStatus()
    if generation.status != 200:
        return GenerationStatus()
    name, _, reason = refused.text.partition("\n") if refused.status == 200 else ("", "", "")
    return GenerationStatus(generation.text.strip(), name.strip(), " ".join(reason.split())[:LONGEST_REASON])
