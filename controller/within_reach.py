"""Which part of a written configuration can be in force at once, and what the rest needs. Pure.

Pools, names, limits, routes, keys and balancing are the gateway's and the controller's own. Containers are not: an engine goes
on with the model and the flags it was started with until `make up` or `make restart-rolling` starts it anew.
"""

from dataclasses import dataclass

import yaml

from config.cluster import Cluster
from config.engines import Engine
from config.gateway import Network
from config.layout import with_engines
from controller.running import Running
from engine.flags import served_names
from render.engines import engines_yaml
from render.environment import settings_of

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
class Reach:
    """What a written configuration comes to at once."""

    cluster: Cluster
    renamed: frozenset[str]
    """Pools with an engine that does not know all the names clients may use."""
    needs: tuple[str, ...]
    """One sentence each for what needs a person."""


def within_reach(written: Cluster, running: Running | None, network: Network) -> Reach:
    """`written` is laid out; `network` is the one the controller was started in. Without `running` all of it is at once in force."""
    cluster = written.model_copy(update={"network": network})
    if running is None:
        return Reach(cluster, frozenset(), _network_need(written, network))
    engines = [kept for engine in written.explicit_engines if (kept := _as_it_runs(engine, written, running))]
    cluster = with_engines(cluster, tuple(engines))
    needs = (*_network_need(written, network), *_settings_need(written, running), *_engines_need(written, running))
    return Reach(cluster, _renamed(cluster, running), tuple(dict.fromkeys(needs)))


def _as_it_runs(engine: Engine, written: Cluster, running: Running) -> Engine | None:
    """An engine stays with the pool whose model it has loaded; None where that pool is gone."""
    if engine.address or engine.name not in running.services:
        return engine
    pool, flavour = running.pool_of(engine.name), running.flavour_of(engine.name)
    if pool not in {one.name for one in written.pools if one.remote is None}:
        return None
    return engine.model_copy(update={"pool": pool, "flavour": flavour})


def _renamed(cluster: Cluster, running: Running) -> frozenset[str]:
    return frozenset(
        engine.pool
        for engine in cluster.explicit_engines
        if engine.name in running.services
        and not set(served_names(cluster, cluster.pool(engine.pool))) <= running.names_of(engine.name)
    )


def _network_need(written: Cluster, network: Network) -> tuple[str, ...]:
    return ("network is another one: `make up` moves the cluster there",) if written.network != network else ()


def _settings_need(written: Cluster, running: Running) -> list[str]:
    wanted = settings_of(written)
    other = [name for name, value in wanted.items() if running.environment.get(name, value) != value]
    settings = dict.fromkeys(SETTINGS.get(name, f"images.{name.removesuffix('_IMAGE').lower()}") for name in other)
    return [f"{setting}: `make up` applies it" for setting in settings if setting != "network"]


def _engines_need(written: Cluster, running: Running) -> list[str]:
    services = yaml.safe_load(engines_yaml(written))["services"]
    started = {engine.name: engine for engine in written.started_engines}
    moved = [name for name, engine in started.items() if name in running.services and _moved(engine, running)]
    older = [
        name
        for name in started
        if name in running.services and name not in moved and services[name] != running.services[name]
    ]
    missing = [name for name in started if name not in running.services]
    spare = [name for name in running.services if name not in started]
    sentences = [
        f"engine {name} still serves {running.pool_of(name)}: `make up` gives it to {started[name].pool}"
        for name in moved
    ]
    if older:
        sentences.append(
            f"{_engines(older, 'runs', 'run')} with older settings: `make restart-rolling` or `make up` takes the new ones over"
        )
    if missing:
        sentences.append(f"{_engines(missing, 'is', 'are')} not started yet: `make up` starts {_them(missing)}")
    if spare:
        sentences.append(
            f"{_engines(spare, 'still runs', 'still run')} and {'gets' if len(spare) == 1 else 'get'} no requests: "
            f"`make up` removes {_them(spare)}"
        )
    return sentences


def _moved(engine: Engine, running: Running) -> bool:
    return (engine.pool, engine.flavour) != (running.pool_of(engine.name), running.flavour_of(engine.name))


def _engines(names: list[str], one: str, several: str) -> str:
    return f"engine {names[0]} {one}" if len(names) == 1 else f"engines {', '.join(names)} {several}"


def _them(names: list[str]) -> str:
    return "it" if len(names) == 1 else "them"
