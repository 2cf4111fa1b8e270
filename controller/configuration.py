"""cluster.yaml and the API keys, watched: what is right comes into force, what is wrong is told whole and changes nothing.

The files are read at every look and compared by content: no event of a file system is needed, so network mounts, bind mounts,
editors that rename and scripts that write in place are all the same. What is in force is kept (controller/kept.py), so that
a restart while the file is broken goes on with it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
import yaml
from pydantic import ValidationError

from config.cluster import Cluster
from config.digest import digest
from config.gateway import Network
from config.inventory import DEFAULT, Inventory
from config.keys import Keys, KeysError, parse_keys
from config.layout import LayoutError, lay_out
from config.load import ConfigError, keys_path, parse
from controller import metrics, running
from controller.gateway_files import GatewayFiles
from controller.in_force import InForce, Refused
from controller.kept import Kept
from controller.running import STARTED
from controller.within_reach import Reach, within_reach

log = structlog.get_logger()
DOCUMENT = "configuration"
UNREADABLE = "\0"
"""In front of what is wrong with a file, in place of its text."""


@dataclass(frozen=True)
class Texts:
    """What stands in the files; None where there is none."""

    cluster: str | None
    keys: str | None
    inventory: str | None
    started: str | None
    """The services of engines as their containers were started."""
    environment: str | None

    @property
    def digest(self) -> str:
        """Names what the operator wrote."""
        return digest(self.cluster, self.keys)


@dataclass(frozen=True)
class Understood:
    """A configuration that can be used."""

    cluster: Cluster
    """As written, laid out on this host."""
    keys: Keys


class Unusable(Exception):
    """`problems` are lines as `make check-config` prints them; `reasons` say what kind they are."""

    def __init__(self, problems: list[str], reasons: set[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
        self.reasons = reasons


def read(config: Path, inventory: Path, keys_file: str) -> Texts:
    """The files as they are at this moment. `keys_file` is the name of the one with the keys."""
    rendered = inventory.parent
    return Texts(
        _text(config),
        _text(config.parent / keys_file),
        _text(inventory),
        # `make up` writes down each engine as it starts it; a plain `docker compose up` starts what is rendered.
        _text(rendered / STARTED) or _text(rendered / "engines.yaml"),
        _text(rendered / "compose.env"),
    )


def understand(texts: Texts, config: Path, keys_before: Keys) -> Understood:
    """Pure. Raises Unusable with everything that is wrong.

    Where `keys_before` holds keys, a file with nothing in it is not taken at its word: it would let everybody in.
    """
    if texts.cluster is None:
        raise Unusable([f"{config}: does not exist"], {"cluster"})
    if texts.cluster.startswith(UNREADABLE):
        raise Unusable([f"{config}: {texts.cluster.removeprefix(UNREADABLE)}"], {"cluster"})
    try:
        cluster = parse(texts.cluster, config)
    except ConfigError as error:
        raise Unusable(str(error).splitlines(), {"cluster"}) from error
    keys = Keys()
    problems: list[str] = []
    reasons: set[str] = set()
    path = keys_path(config, cluster)
    try:
        keys = _keys(texts.keys, path, keys_before)
    except KeysError as error:
        problems += str(error).splitlines()
        reasons.add("keys")
    try:
        cluster = lay_out(cluster, _inventory(texts.inventory))
    except LayoutError as error:
        problems.append(f"{config}: {error}")
        reasons.add("layout")
    if problems:
        raise Unusable(problems, reasons)
    return Understood(cluster, keys)


def _keys(text: str | None, path: Path, before: Keys) -> Keys:
    if text is not None and text.startswith(UNREADABLE):
        raise KeysError(path, [text.removeprefix(UNREADABLE)])
    if before.keys and not (text or "").strip():
        found = "is gone" if text is None else "is empty"
        raise KeysError(path, [f"{found} while there are keys in force; `keys: []` in it lets everybody in"])
    return parse_keys(text or "", path)


class Configuration:
    """The files, what of them is in force, and what is wrong with the rest."""

    def __init__(self, config: Path, inventory: Path, kept: Kept) -> None:
        """Reads the files, or where they are wrong what was in force last. Raises Unusable when there is nothing to begin with."""
        self.config, self.inventory, self.kept = config, inventory, kept
        self.problems: list[str] = []
        self.needs: tuple[str, ...] = ()
        self.applied_at = datetime.now(UTC)
        self._seen = self._read(None)
        self._judged = self._applied = self._seen
        last = self._last()
        try:
            understood = understand(self._seen, config, last.keys if last else Keys())
        except Unusable as error:
            if last is None:
                raise
            understood = last
            self._applied = replace(self._seen, **self._kept_texts())
            self._refuse(error)
        self._taken = understood
        self.network: Network = understood.cluster.network
        self.keys = understood.keys
        self.reach = self._reach(understood)

    def begin(self, in_force: InForce, gateway: GatewayFiles, tell: Callable[[str], None]) -> None:
        """From here on changes reach `in_force`; what is in force at the start reaches the gateway."""
        self.in_force, self.gateway, self.tell = in_force, gateway, tell
        for problem in self.problems:
            tell(f"configuration refused: {problem}")
        self._tell_needs(())
        gateway.keys, gateway.renamed = self.keys, self.reach.renamed
        gateway.apply(in_force.cluster)
        self._keep()

    async def watch(self) -> None:
        """Looks at the files until cancelled."""
        while True:
            await asyncio.sleep(self.in_force.cluster.controller.config_interval_s)
            self.look()

    def look(self) -> None:
        """One look. Texts are judged once two looks in a row saw them: a file that is being written is seen half."""
        texts = self._read(self._taken.cluster)
        settled = texts == self._seen
        self._seen = texts
        if settled and texts != self._judged:
            self._judged = texts
            self._judge(texts)

    def status(self) -> dict[str, Any]:
        """For people and `make up`: GET /api/configuration."""
        return {
            "applied": {"at": self.applied_at.isoformat(timespec="seconds"), "digest": self._applied.digest},
            "judged": self._judged.digest,
            "refused": self.problems,
            "gateway": self.gateway.status(),
            "needs": list(self.needs),
        }

    def _judge(self, texts: Texts) -> None:
        try:
            understood = understand(texts, self.config, self._taken.keys)
            if understood.cluster.gateway.keys_file != self._taken.cluster.gateway.keys_file:
                # The keys that were read are those of another file.
                texts = self._seen = self._judged = self._read(understood.cluster)
                understood = understand(texts, self.config, self._taken.keys)
            self._apply(texts, understood)
        except Unusable as error:
            self._refuse(error)
            for problem in error.problems:
                self.tell(f"configuration refused: {problem}")

    def _apply(self, texts: Texts, understood: Understood) -> None:
        """Raises Unusable, and nothing changes, when it breaks a rule together with what was registered at run time."""
        before = (self.gateway.keys, self.gateway.renamed)
        reach = self._reach(understood)
        self.gateway.keys, self.gateway.renamed = understood.keys, reach.renamed
        try:
            self.in_force.take_written(reach.cluster)
        except Refused as error:
            self.gateway.keys, self.gateway.renamed = before
            raise Unusable([f"{self.config}: {problem}" for problem in error.problems], {"registered"}) from error
        as_before = texts == replace(self._applied, started=texts.started, environment=texts.environment)
        had_problems, needed = bool(self.problems), self.needs
        self._applied, self._taken, self.reach, self.problems = texts, understood, reach, []
        self.applied_at = datetime.now(UTC)
        metrics.CONFIG_REFUSED.set(0)
        metrics.CONFIG_APPLIED.set_to_current_time()
        if not as_before:
            self.tell(f"configuration applied: {self.config}")
        elif had_problems:
            self.tell(f"configuration applied: {self.config} is what is in force again")
        self._tell_needs(needed)
        self._keep()

    def _reach(self, understood: Understood) -> Reach:
        runs = running.read(self._seen.started, self._seen.environment)
        reach = within_reach(understood.cluster, runs, self.network)
        self.needs = reach.needs
        metrics.CONFIG_NEEDS.set(len(reach.needs))
        return reach

    def _refuse(self, error: Unusable) -> None:
        self.problems = error.problems
        metrics.CONFIG_REFUSED.set(1)
        for reason in error.reasons:
            metrics.CONFIG_REFUSALS.labels(reason).inc()
        log.error("configuration_refused", file=str(self.config), problems=error.problems)

    def _tell_needs(self, before: tuple[str, ...]) -> None:
        for need in self.needs:
            if need not in before:
                self.tell(f"configuration: {need}")

    def _keep(self) -> None:
        document = {"file": str(self.config), "cluster": self._applied.cluster, "keys": self._applied.keys}
        if not self.problems and self.kept.read(DOCUMENT) != document:
            self.kept.write(DOCUMENT, document)

    def _kept_texts(self) -> dict[str, str | None]:
        """What stood in the files when they were in force last; empty when that is not known."""
        document = self.kept.read(DOCUMENT)
        if not isinstance(document, dict) or document.get("file") != str(self.config):
            return {}
        return {"cluster": document.get("cluster"), "keys": document.get("keys")}

    def _last(self) -> Understood | None:
        """What was in force last, None when that is not known or of no use any more."""
        try:
            return (
                understand(replace(self._seen, **kept), self.config, Keys()) if (kept := self._kept_texts()) else None
            )
        except Unusable:
            return None

    def _read(self, cluster: Cluster | None) -> Texts:
        """Before anything is in force the name of the keys file is the one that is written."""
        if cluster is None:
            try:
                cluster = parse(_text(self.config) or "", self.config)
            except ConfigError:
                return replace(read(self.config, self.inventory, ""), keys=None)
        return read(self.config, self.inventory, cluster.gateway.keys_file)


def _text(path: Path) -> str | None:
    """None where there is no such file."""
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        return f"{UNREADABLE}cannot be read: {error}"


def _inventory(text: str | None) -> Inventory:
    if text is None:
        return DEFAULT
    try:
        return Inventory.model_validate(yaml.safe_load(text))
    except (ValidationError, yaml.YAMLError) as error:
        raise LayoutError(f"what `make up` found on this host cannot be read: {error}") from error
