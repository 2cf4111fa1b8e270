"""Watches cluster.yaml and the API keys. Applies valid changes; rejects invalid ones and reports all their problems.

The files are read at every poll and compared by content. No file system events are needed, so network mounts, bind
mounts, editors that rename and scripts that write in place all work. The active configuration is persisted
(manyeyes/controller/state_store.py), so that a restart with an invalid file continues with it.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from manyeyes.config.cluster import Cluster
from manyeyes.config.credentials import ApiKeys
from manyeyes.config.gateway import Network
from manyeyes.config.loader import ConfigError, parse
from manyeyes.controller import metrics
from manyeyes.controller.config_sync import apply_plan, config_files
from manyeyes.controller.config_sync.apply_plan import STARTED, ApplyPlan, ComposeState, plan_apply
from manyeyes.controller.config_sync.config_files import (
    ConfigTexts,
    InvalidConfiguration,
    UnreadableFile,
    ValidConfiguration,
    validate,
)
from manyeyes.controller.config_sync.effective_config import ChangeRejected, EffectiveConfig
from manyeyes.controller.config_sync.nginx_publisher import NginxPublisher
from manyeyes.controller.state_store import StateStore
from manyeyes.controller.supervision import record_failure

log = structlog.get_logger()
DOCUMENT = "configuration"


class ConfigWatcher:
    """The configuration files, the active configuration, and the problems of a rejected one."""

    def __init__(self, config: Path, inventory: Path, state_store: StateStore) -> None:
        """Reads the files; when they are invalid, loads the last active configuration from the state folder.

        Raises InvalidConfiguration when there is none.
        """
        self.config, self.inventory, self.state_store = config, inventory, state_store
        self.problems: list[str] = []
        self.needs: tuple[str, ...] = ()
        self.applied_at = datetime.now(UTC)
        self._running: ComposeState | None = None
        """What Compose runs, as `make up` last wrote it in a readable file."""
        self._not_known = ""
        self._seen = self._read(None)
        self._validated = self._applied = self._seen
        last = self._stored_configuration()
        try:
            understood = validate(self._seen, config, last.keys if last else ApiKeys())
        except InvalidConfiguration as error:
            if last is None:
                raise
            understood = last
            self._applied = replace(self._seen, **self._stored_texts())
            self._reject(error)
        self._valid = understood
        self.network: Network = understood.cluster.network
        self.keys = understood.keys
        try:
            self.plan = self._make_plan(understood)
        except Exception:
            # Serving the configuration as written is better than not starting.
            log.exception("compose_state_unreadable", folder=str(self.inventory.parent), file=STARTED)
            self.plan = plan_apply(understood.cluster, None, self.network)

    def start(self, effective: EffectiveConfig, gateway: NginxPublisher, emit_event: Callable[[str], None]) -> None:
        """Applies later changes to `effective`, and publishes the initial configuration to the gateway."""
        self.effective, self.gateway, self.emit_event = effective, gateway, emit_event
        for problem in self.problems:
            emit_event(f"configuration refused: {problem}")
        self._emit_needs(())
        gateway.keys = self.keys
        gateway.apply(effective.cluster)
        self._save()

    async def watch(self) -> None:
        """Polls the files until cancelled."""
        while True:
            await asyncio.sleep(self.effective.cluster.controller.config_poll_interval_s)
            try:
                await self.poll()
            except Exception:
                record_failure("configuration", file=str(self.config))
                self._reject(
                    InvalidConfiguration([f"{self.config}: cannot be applied; see the controller's log"], {"bug"})
                )

    async def poll(self) -> None:
        """Reads the files once. Texts are validated when two polls in a row saw them: a file may be half written."""
        # In threads: a hanging disk or a file that is slow to read must not block DNS.
        texts = await asyncio.to_thread(self._read, self._valid.cluster)
        settled = texts == self._seen
        self._seen = texts
        if settled and texts != self._validated:
            self._validated = texts
            await self._validate(texts)

    def status(self) -> dict[str, Any]:
        """The response of GET /api/configuration, for operators and `make up`."""
        return {
            "applied": {"at": self.applied_at.isoformat(timespec="seconds"), "digest": self._applied.digest},
            "validated": self._validated.digest,
            "refused": self.problems,
            "gateway": self.gateway.status(),
            "needs": list(self.needs),
        }

    async def _validate(self, texts: ConfigTexts) -> None:
        try:
            understood = await asyncio.to_thread(validate, texts, self.config, self._valid.keys)
            if understood.cluster.gateway.keys_file != self._valid.cluster.gateway.keys_file:
                # The keys were read from the file that the previous configuration names.
                texts = self._seen = self._validated = await asyncio.to_thread(self._read, understood.cluster)
                understood = await asyncio.to_thread(validate, texts, self.config, self._valid.keys)
            self._apply(texts, understood, await asyncio.to_thread(self._make_plan, understood))
            await asyncio.to_thread(self._save)
        except InvalidConfiguration as error:
            self._reject(error)
            for problem in error.problems:
                self.emit_event(f"configuration refused: {problem}")

    def _apply(self, texts: ConfigTexts, understood: ValidConfiguration, plan: ApplyPlan) -> None:
        """Applies a valid configuration.

        Raises InvalidConfiguration, and changes nothing, when it conflicts with registered engines and pools.
        """
        before = (self.gateway.keys, self.plan)
        self.gateway.keys, self.plan = understood.keys, plan
        try:
            self.effective.apply_written(plan.cluster)
        except Exception as error:
            self.gateway.keys, self.plan = before
            if not isinstance(error, ChangeRejected):
                raise
            raise InvalidConfiguration(
                [f"{self.config}: {problem}" for problem in error.problems], {"registered"}
            ) from error
        as_before = texts == replace(self._applied, started=texts.started, environment=texts.environment)
        had_problems, needed = bool(self.problems), self.needs
        self._applied, self._valid, self.problems = texts, understood, []
        self.applied_at = datetime.now(UTC)
        metrics.CONFIG_REFUSED.set(0)
        metrics.CONFIG_APPLIED.set_to_current_time()
        if not as_before:
            self.emit_event(f"configuration applied: {self.config}")
        elif had_problems:
            self.emit_event(f"configuration reverted to the active version: {self.config}")
        self._emit_needs(needed)

    def _make_plan(self, understood: ValidConfiguration) -> ApplyPlan:
        plan = plan_apply(understood.cluster, self._runs(), self.network)
        self.needs = plan.needs
        metrics.CONFIG_NEEDS.set(len(plan.needs))
        return plan

    def _runs(self) -> ComposeState | None:
        """What Compose runs; while its files cannot be read, the last known state."""
        started, environment = self._seen.started, self._seen.environment
        try:
            for text in (started, environment):
                if isinstance(text, UnreadableFile):
                    raise apply_plan.UnknownComposeState(text.why)
            assert not isinstance(started, UnreadableFile)
            assert not isinstance(environment, UnreadableFile)
            self._running, self._not_known = apply_plan.parse_compose_state(started, environment), ""
        except apply_plan.UnknownComposeState as error:
            if self._running is None:
                self._running = self._stored_compose_state()
            if str(error) != self._not_known:
                self._not_known = str(error)
                log.error(
                    "compose_state_unreadable", folder=str(self.inventory.parent), file=STARTED, reason=str(error)
                )
        return self._running

    def _stored_compose_state(self) -> ComposeState | None:
        document = self._stored_document()
        started, environment = document.get("started"), document.get("environment")
        with contextlib.suppress(apply_plan.UnknownComposeState):
            if isinstance(started, str):
                return apply_plan.parse_compose_state(started, environment if isinstance(environment, str) else None)
        return None

    def _reject(self, error: InvalidConfiguration) -> None:
        self.problems = error.problems
        metrics.CONFIG_REFUSED.set(1)
        for reason in error.reasons:
            metrics.CONFIG_REFUSALS.labels(reason).inc()
        log.error("configuration_refused", file=str(self.config), problems=error.problems)

    def _emit_needs(self, before: tuple[str, ...]) -> None:
        for need in self.needs:
            if need not in before:
                self.emit_event(f"configuration: {need}")

    def _save(self) -> None:
        if self.problems:
            return
        applied, before = self._applied, self._stored_document()
        document = {"file": str(self.config), "cluster": applied.cluster, "keys": applied.keys}
        document["inventory"] = applied.inventory
        for name, text in (("started", applied.started), ("environment", applied.environment)):
            document[name] = before.get(name) if self._not_known else text
        if before != document:
            self.state_store.write(DOCUMENT, document)

    def _stored_document(self) -> dict[str, Any]:
        """The persisted document of this file; empty when there is none."""
        document = self.state_store.read(DOCUMENT)
        if not isinstance(document, dict) or document.get("file") != str(self.config):
            return {}
        return document

    def _stored_texts(self) -> dict[str, str | None]:
        """The texts of the files that were last applied; empty when unknown."""
        document = self._stored_document()
        texts = {name: document.get(name) for name in ("cluster", "keys")}
        if not isinstance(texts["cluster"], str) or not isinstance(texts["keys"], str | None):
            return {}
        return texts

    def _stored_configuration(self) -> ValidConfiguration | None:
        """The configuration that was last applied; None when it is unknown or no longer valid."""
        texts = self._stored_texts()
        inventory = self._stored_document().get("inventory")
        inventories = [self._seen.inventory, *([inventory] if isinstance(inventory, str) else [])]
        for inventory_text in inventories if texts else ():
            with contextlib.suppress(InvalidConfiguration):
                return validate(replace(self._seen, **texts, inventory=inventory_text), self.config, ApiKeys())
        return None

    def _read(self, cluster: Cluster | None) -> ConfigTexts:
        """Reads the files. Without an active `cluster`, the name of the keys file comes from cluster.yaml itself."""
        if cluster is None:
            try:
                text = config_files.read_text(self.config)
                cluster = parse(text if isinstance(text, str) else "", self.config)
            except ConfigError:
                return replace(config_files.read_files(self.config, self.inventory, ""), keys=None)
        return config_files.read_files(self.config, self.inventory, cluster.gateway.keys_file)
