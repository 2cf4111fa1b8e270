"""Splits a configuration change into what can be applied live and what requires a restart. Pure.

The gateway and the controller apply pools, names, limits, routes, keys and balancing themselves. Containers do not
change: an engine keeps its model and flags until `make up` or `make restart-rolling` restarts it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import yaml

from manyeyes.config import documents
from manyeyes.config.documents import DocumentError
from manyeyes.config.engines import Engine
from manyeyes.config.gateway import Network
from manyeyes.config.placement import PlacedCluster, with_engines
from manyeyes.config.pools import AUTO, Flavour
from manyeyes.engine.vllm_flags import TINY_DIR, served_names_slice
from manyeyes.render.compose_engines import engines_yaml
from manyeyes.render.compose_env import compose_settings

STARTED = "started.yaml"
"""A file next to the rendered files. It has the form of engines.yaml, with each engine as its container was started."""


@dataclass(frozen=True)
class ComposeState:
    """What Compose runs: the services of engines by engine name, and the values of compose.env."""

    services: Mapping[str, Mapping[str, Any]]
    environment: Mapping[str, str]

    def pool_of(self, engine: str) -> str:
        return str(self.services[engine]["labels"]["manyeyes.pool"])

    def flavour_of(self, engine: str) -> Flavour:
        flavour: Flavour = self.services[engine]["labels"]["manyeyes.flavour"]
        return flavour

    def names_of(self, engine: str) -> frozenset[str]:
        """Every value of `model` that the engine accepts."""
        return frozenset(self._names(engine))

    def model_of(self, engine: str) -> str | None:
        """The model that the engine has loaded, as a pool's `model`; None when its command does not name it."""
        command = [str(word) for word in self.services[engine]["command"]]
        if command and not command[0].startswith("-"):
            return {TINY_DIR: "tiny"}.get(command[0], self._mounted(engine).get(command[0], command[0]))
        # An emulated engine has the model's id only among its served names, after its pool's name
        # (manyeyes/config/pools.py).
        return next((name for name in self._names(engine)[1:2] if name != AUTO), None)

    def _names(self, engine: str) -> list[str]:
        command = list(self.services[engine]["command"])
        return command[served_names_slice(command)]

    def _mounted(self, engine: str) -> dict[str, str]:
        """{path in the container: folder on this host}."""
        return {str(volume["target"]): str(volume["source"]) for volume in self.services[engine].get("volumes", ())}


class UnknownComposeState(ValueError):
    """What Compose runs cannot be read from its files; the message says why."""


def parse_compose_state(engines_yaml: str | None, compose_env: str | None) -> ComposeState | None:
    """Parses the files; None when they do not exist, because the controller runs without Compose.

    Raises only UnknownComposeState.
    """
    if engines_yaml is None:
        return None
    try:
        document = documents.parse(engines_yaml)
    except DocumentError as error:
        raise UnknownComposeState(str(error)) from error
    compose_services = document.get("services") if isinstance(document, dict) else document
    if not isinstance(document, dict | None) or not isinstance(compose_services, dict | None):
        raise UnknownComposeState("services: expected a mapping")
    services = {}
    for name, service in (compose_services or {}).items():
        if not isinstance(service, dict):
            raise UnknownComposeState(f"services.{str(name)[:60]}: expected a mapping")
        labels = service.get("labels", {})
        if not isinstance(labels, dict):
            raise UnknownComposeState(f"services.{str(name)[:60]}.labels: expected a mapping")
        if "manyeyes.engine" not in labels:
            continue
        command = service.get("command")
        flavour = labels.get("manyeyes.flavour")
        if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
            raise UnknownComposeState(f"services.{str(name)[:60]}.command: expected a list of strings")
        if not isinstance(name, str) or "manyeyes.pool" not in labels or flavour not in get_args(Flavour):
            raise UnknownComposeState(
                f"services.{str(name)[:60]}.labels: expected manyeyes.pool and a known manyeyes.flavour"
            )
        services[name] = service
    return ComposeState(services, parse_environment(compose_env or ""))


def parse_environment(text: str) -> dict[str, str]:
    """Parses KEY=value lines."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))


SETTINGS = {
    "CONTROLLER_IP": "network",
    "GATEWAY_ADDRESS": "gateway.host and gateway.port",
    "MAX_BODY_MB": "gateway.max_body_mb for the web UI",
    "PROMETHEUS_PORT": "monitoring",
    "SCRAPE_INTERVAL": "monitoring",
    "PROMETHEUS_RETENTION": "monitoring",
    "PROMETHEUS_RETENTION_SIZE": "monitoring",
    "MONITORING_REPLICAS": "monitoring",
    "ALERTMANAGER_PORT": "monitoring",
    "GPU_EXPORTER_REPLICAS": "monitoring",
    "MODELS_DISK": "models.volume",
    "ADAPTER_REPLICAS": "adapter",
    "LOG_FILE_SIZE": "logs.retention_mb",
    "LOKI_REPLICAS": "logs.loki",
    "LOKI_KEEP": "logs.loki",
    "JAEGER_REPLICAS": "tracing",
    "JAEGER_PORT": "tracing",
}
"""Settings that only `make up` applies, by their variable in compose.env. Every other variable is an image."""


@dataclass(frozen=True)
class ApplyPlan:
    """The part of a written configuration that is applied live, and what the rest requires."""

    cluster: PlacedCluster
    needs: tuple[str, ...]
    """One sentence for each action that an operator must take."""
    accepted: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """For engines that Compose started: every value of `model` that the engine accepts, by engine name."""


def plan_apply(written: PlacedCluster, running: ComposeState | None, network: Network) -> ApplyPlan:
    """Computes the plan. `written` is a placed cluster; `network` is the network in which the controller was started.

    Without `running`, everything except the network is applied live.
    """
    cluster = written.model_copy(update={"network": network})
    if running is None:
        return ApplyPlan(cluster, _network_need(written, network))
    engines = tuple(_as_it_runs(engine, written, running) for engine in written.engines)
    current = (*engines, *_still_needed(written, running))
    cluster = with_engines(cluster, current)
    needs = (
        *_network_need(written, network),
        *_settings_need(written, running),
        *_engines_need(written, current, running),
    )
    accepted = {
        engine.name: running.names_of(engine.name) for engine in cluster.engines if engine.name in running.services
    }
    return ApplyPlan(cluster, tuple(dict.fromkeys(needs)), accepted)


def _as_it_runs(engine: Engine, written: PlacedCluster, running: ComposeState) -> Engine:
    """The engine with the pool and flavour it runs with: it stays with the pool whose model it has loaded."""
    if engine.address or engine.name not in running.services:
        return engine
    return engine.model_copy(
        update={"pool": _pool_now(engine, written, running), "flavour": running.flavour_of(engine.name)}
    )


def _pool_now(engine: Engine, written: PlacedCluster, running: ComposeState) -> str:
    """The pool that a running engine serves.

    When the pool that the engine was started for is gone, this is its pool in the file: that pool was renamed, or gets
    the engines of the other. The gateway answers both names until the engine is restarted.
    """
    started_pool = running.pool_of(engine.name)
    pools = {pool.name: pool for pool in written.pools if pool.remote is None}
    if started_pool not in pools or engine.pool not in pools:
        return engine.pool
    # Two pools that swapped their names: the engine serves the pool that has its model.
    return engine.pool if running.model_of(engine.name) == pools[engine.pool].model else started_pool


def _still_needed(written: PlacedCluster, running: ComposeState) -> list[Engine]:
    """Running engines that are no longer in the file, but whose pool waits for an engine that is not started.

    An engine that was renamed in the file is another container, which `make up` starts.
    """
    listed = {engine.name for engine in written.engines}
    waiting = [
        engine
        for engine in written.started_engines
        if engine.name not in running.services and engine.time_shares_with is None
    ]
    pools = {pool.name: pool for pool in written.pools if pool.remote is None}
    needed: list[Engine] = []
    for name in running.services:
        if name in listed or not waiting:
            continue
        started_pool, model = running.pool_of(name), running.model_of(name)
        # Candidates in this order: its own pool with the same model, any pool with the same model, its own pool.
        fitting = [
            *(
                engine
                for engine in waiting
                if engine.pool == started_pool and (model is None or pools[started_pool].model == model)
            ),
            *(engine for engine in waiting if model is not None and pools[engine.pool].model == model),
            *(engine for engine in waiting if engine.pool == started_pool),
        ]
        if fitting:
            needed.append(
                Engine(
                    name=name,
                    pool=fitting[0].pool,
                    flavour=running.flavour_of(name),
                    max_in_flight=fitting[0].max_in_flight,
                )
            )
    return needed


def _network_need(written: PlacedCluster, network: Network) -> tuple[str, ...]:
    need = "network changed: run `make up` to move the cluster to the new network"
    return (need,) if written.network != network else ()


def _settings_need(written: PlacedCluster, running: ComposeState) -> list[str]:
    expected = compose_settings(written)
    changed = [name for name, value in expected.items() if running.environment.get(name, value) != value]
    settings = dict.fromkeys(SETTINGS.get(name, f"images.{name.removesuffix('_IMAGE').lower()}") for name in changed)
    return [f"{setting} changed: run `make up` to apply it" for setting in settings if setting != "network"]


def _engines_need(written: PlacedCluster, current: tuple[Engine, ...], running: ComposeState) -> list[str]:
    """What the engines need. `current` are the engines as they serve until then."""
    services = yaml.safe_load(engines_yaml(written))["services"]
    started = {engine.name: engine for engine in written.started_engines}
    placement = {engine.name: (engine.pool, engine.flavour) for engine in current}
    moved = [
        name
        for name, engine in started.items()
        if name in running.services and (engine.pool, engine.flavour) != placement[name]
    ]
    older = [
        name
        for name in started
        if name in running.services and name not in moved and services[name] != running.services[name]
    ]
    missing = [name for name in started if name not in running.services]
    spare = [name for name in running.services if name not in started]
    replaced = [engine.name for engine in current if engine.name in spare]
    spare = [name for name in spare if name not in replaced]
    sentences = [
        f"engine {name} still serves {placement[name][0]}: run `make up` to move it to {started[name].pool}"
        for name in moved
    ]
    if older:
        sentences.append(
            f"{_engines(older, 'runs', 'run')} with older settings: "
            "run `make restart-rolling` or `make up` to apply the new settings"
        )
    if missing:
        sentences.append(
            f"{_engines(missing, 'is', 'are')} not started yet: run `make up` to start {_pronoun(missing)}"
        )
    if replaced:
        sentences.append(
            f"{_engines(replaced, 'serves', 'serve')} until "
            f"{'its replacement in the file is' if len(replaced) == 1 else 'their replacements in the file are'} up: "
            f"run `make up` to start {'the replacement' if len(replaced) == 1 else 'the replacements'}"
        )
    if spare:
        sentences.append(
            f"{_engines(spare, 'still runs', 'still run')} and {'gets' if len(spare) == 1 else 'get'} no requests: "
            f"run `make up` to remove {_pronoun(spare)}"
        )
    return sentences


def _engines(names: list[str], singular: str, plural: str) -> str:
    return f"engine {names[0]} {singular}" if len(names) == 1 else f"engines {', '.join(names)} {plural}"


def _pronoun(names: list[str]) -> str:
    return "it" if len(names) == 1 else "them"
