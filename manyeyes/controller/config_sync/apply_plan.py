"""Which part of a written configuration can be in force at once, and what the rest needs. Pure.

Pools, names, limits, routes, keys and balancing are the gateway's and the controller's own. Containers are not: an engine goes
on with the model and the flags it was started with until `make up` or `make restart-rolling` starts it anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import yaml

from manyeyes.config.engines import Engine
from manyeyes.config.gateway import Network
from manyeyes.config.placement import PlacedCluster, with_engines
from manyeyes.controller.config_sync.compose_state import ComposeState
from manyeyes.engine.vllm_flags import served_names
from manyeyes.render.compose_engines import engines_yaml
from manyeyes.render.compose_env import compose_settings

SETTINGS = {
    "CONTROLLER_IP": "network",
    "GATEWAY_ADDRESS": "gateway.host and gateway.port",
    "MAX_BODY_MB": "gateway.max_body_mb, as far as the page is concerned",
    "PROMETHEUS_PORT": "monitoring",
    "SCRAPE_INTERVAL": "monitoring",
    "PROMETHEUS_RETENTION": "monitoring",
    "PROMETHEUS_RETENTION_SIZE": "monitoring",
    "MONITORING_REPLICAS": "monitoring",
    "ALERTMANAGER_PORT": "monitoring",
    "GPU_EXPORTER_REPLICAS": "monitoring",
    "MODELS_DISK": "models.volume",
    "ADAPTER_REPLICAS": "adapter",
    "LOG_FILE_SIZE": "logs.keep_mb",
    "LOKI_REPLICAS": "logs.loki",
    "LOKI_KEEP": "logs.loki",
    "JAEGER_REPLICAS": "tracing",
    "JAEGER_PORT": "tracing",
}
"""What `make up` has to see to, by the values that Compose takes. Everything else there is an image."""


@dataclass(frozen=True)
class ApplyPlan:
    """What a written configuration comes to at once."""

    cluster: PlacedCluster
    renamed: frozenset[str]
    """Pools with an engine that does not know all the names clients may use."""
    needs: tuple[str, ...]
    """One sentence each for what needs a person."""
    accepted: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Every `model` that an engine accepts, by the engine's name, for those that Compose started."""


def plan_apply(written: PlacedCluster, running: ComposeState | None, network: Network) -> ApplyPlan:
    """`written` is laid out; `network` is the one the controller was started in. Without `running` all of it is at once in force."""
    cluster = written.model_copy(update={"network": network})
    if running is None:
        return ApplyPlan(cluster, frozenset(), _network_need(written, network))
    engines = tuple(_as_it_runs(engine, written, running) for engine in written.engines)
    kept = (*engines, *_still_needed(written, running))
    cluster = with_engines(cluster, kept)
    needs = (
        *_network_need(written, network),
        *_settings_need(written, running),
        *_engines_need(written, kept, running),
    )
    accepted = {one.name: running.names_of(one.name) for one in cluster.engines if one.name in running.services}
    return ApplyPlan(cluster, _renamed(cluster, running), tuple(dict.fromkeys(needs)), accepted)


def _as_it_runs(engine: Engine, written: PlacedCluster, running: ComposeState) -> Engine:
    """An engine stays with the pool whose model it has loaded, also where that has another name now."""
    if engine.address or engine.name not in running.services:
        return engine
    return engine.model_copy(
        update={"pool": _pool_now(engine, written, running), "flavour": running.flavour_of(engine.name)}
    )


def _pool_now(engine: Engine, written: PlacedCluster, running: ComposeState) -> str:
    """The pool that a running engine serves. Where the pool that it was started for is gone, it is the one that the file gives it to:
    that pool has another name now, or takes over its engines, and both names go on to be answered until the engine is restarted."""
    then = running.pool_of(engine.name)
    pools = {one.name: one for one in written.pools if one.remote is None}
    if then not in pools or engine.pool not in pools:
        return engine.pool
    # Names that change places: the model went to the pool that has the other name now.
    return engine.pool if running.model_of(engine.name) == pools[engine.pool].model else then


def _still_needed(written: PlacedCluster, running: ComposeState) -> list[Engine]:
    """Engines that run and are written no more, while their pool waits for one that is not started: an engine that got another name
    is another container, and `make up` starts it."""
    listed = {engine.name for engine in written.engines}
    waiting = [one for one in written.started_engines if one.name not in running.services and one.instead_of is None]
    pools = {one.name: one for one in written.pools if one.remote is None}
    kept: list[Engine] = []
    for name in running.services:
        if name in listed or not waiting:
            continue
        then, model = running.pool_of(name), running.model_of(name)
        # Of its own pool if that has its model still, else of one that has it now, else of its own.
        fitting = [
            *(one for one in waiting if one.pool == then and (model is None or pools[then].model == model)),
            *(one for one in waiting if model is not None and pools[one.pool].model == model),
            *(one for one in waiting if one.pool == then),
        ]
        if fitting:
            kept.append(
                Engine(
                    name=name,
                    pool=fitting[0].pool,
                    flavour=running.flavour_of(name),
                    max_in_flight=fitting[0].max_in_flight,
                )
            )
    return kept


def _renamed(cluster: PlacedCluster, running: ComposeState) -> frozenset[str]:
    return frozenset(
        engine.pool
        for engine in cluster.engines
        if engine.name in running.services
        and not set(served_names(cluster, cluster.pool_of(engine))) <= running.names_of(engine.name)
    )


def _network_need(written: PlacedCluster, network: Network) -> tuple[str, ...]:
    return ("network is another one: `make up` moves the cluster there",) if written.network != network else ()


def _settings_need(written: PlacedCluster, running: ComposeState) -> list[str]:
    wanted = compose_settings(written)
    other = [name for name, value in wanted.items() if running.environment.get(name, value) != value]
    settings = dict.fromkeys(SETTINGS.get(name, f"images.{name.removesuffix('_IMAGE').lower()}") for name in other)
    return [f"{setting}: `make up` applies it" for setting in settings if setting != "network"]


def _engines_need(written: PlacedCluster, kept: tuple[Engine, ...], running: ComposeState) -> list[str]:
    """`kept` are the engines as they serve for the time being."""
    services = yaml.safe_load(engines_yaml(written))["services"]
    started = {engine.name: engine for engine in written.started_engines}
    now = {engine.name: (engine.pool, engine.flavour) for engine in kept}
    moved = [
        name
        for name, engine in started.items()
        if name in running.services and (engine.pool, engine.flavour) != now[name]
    ]
    older = [
        name
        for name in started
        if name in running.services and name not in moved and services[name] != running.services[name]
    ]
    missing = [name for name in started if name not in running.services]
    spare = [name for name in running.services if name not in started]
    replaced = [engine.name for engine in kept if engine.name in spare]
    spare = [name for name in spare if name not in replaced]
    sentences = [
        f"engine {name} still serves {now[name][0]}: `make up` gives it to {started[name].pool}" for name in moved
    ]
    if older:
        sentences.append(
            f"{_engines(older, 'runs', 'run')} with older settings: `make restart-rolling` or `make up` takes the new ones over"
        )
    if missing:
        sentences.append(f"{_engines(missing, 'is', 'are')} not started yet: `make up` starts {_them(missing)}")
    if replaced:
        sentences.append(
            f"{_engines(replaced, 'serves', 'serve')} until the "
            f"{'engine that the file has instead is' if len(replaced) == 1 else 'engines that the file has instead are'} up: "
            f"`make up` starts {'that' if len(replaced) == 1 else 'those'}"
        )
    if spare:
        sentences.append(
            f"{_engines(spare, 'still runs', 'still run')} and {'gets' if len(spare) == 1 else 'get'} no requests: "
            f"`make up` removes {_them(spare)}"
        )
    return sentences


def _engines(names: list[str], one: str, several: str) -> str:
    return f"engine {names[0]} {one}" if len(names) == 1 else f"engines {', '.join(names)} {several}"


def _them(names: list[str]) -> str:
    return "it" if len(names) == 1 else "them"
