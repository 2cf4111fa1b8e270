"""Handles pools that are renamed while they serve: matches old and new pools, and names that the engines accept.

A pool counts as renamed when its engines, identified by address, are the same. It keeps its upstream in nginx, so
members, conversations and requests in flight are not affected. Its engines were started with the old name. Until all of
them accept the new name, the gateway sends a name that each engine accepts, and clients may still use the old name.
"""

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from manyeyes.config.engines import Engine
from manyeyes.config.placement import PlacedCluster
from manyeyes.engine.vllm_flags import served_names
from manyeyes.render.nginx.naming import PoolNaming

FORMER_FOR_S = 20.0
"""The minimum time for which an old name is answered. A client's open connections reach nginx processes from before
and after the reload for up to 15 s (keepalive_min_timeout in nginx/conf.d/api.inc), and none of them may refuse both
names."""
MAX_FORMER_NAMES = 8
"""Maximum number of old names of one pool that are answered."""


@dataclass(frozen=True)
class PoolLineage:
    """The pools and their former names."""

    upstreams: Mapping[str, str] = field(default_factory=dict)
    """Pool -> the name of its upstream, which is its first name."""
    former: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Pool -> its former names, newest first."""
    renamed_at_s: Mapping[str, float] = field(default_factory=dict)
    """Renamed pool -> when it got its current name, in seconds since 1970."""
    models: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    """Address of an engine -> its pool."""

    def document(self) -> dict[str, Any]:
        """The persisted form, for manyeyes/controller/state_store.py."""
        return {
            "upstreams": dict(self.upstreams),
            "former": {pool: list(names) for pool, names in self.former.items()},
            "renamed_at_s": dict(self.renamed_at_s),
            "models": dict(self.models),
            "places": dict(self.places),
        }


def engine_address(engine: Engine) -> str:
    return f"{engine.host}:{engine.port}"


def parse_lineage(document: Any) -> PoolLineage:
    """Parses the output of `document()`. Empty when it is invalid."""
    if not isinstance(document, dict):
        return PoolLineage()
    upstreams, models, places = (_texts(document.get(key)) for key in ("upstreams", "models", "places"))
    former = document.get("former")
    names = {
        str(pool): tuple(str(name) for name in pool_names)
        for pool, pool_names in (former.items() if isinstance(former, dict) else ())
        if isinstance(pool_names, list)
    }
    rename_times = document.get("renamed_at_s")
    times = {
        str(pool): float(at_s)
        for pool, at_s in (rename_times.items() if isinstance(rename_times, dict) else ())
        if isinstance(at_s, int | float)
    }
    return PoolLineage(upstreams, names, times, models, places) if set(upstreams) == set(models) else PoolLineage()


def _texts(document: Any) -> dict[str, str]:
    return {str(key): str(value) for key, value in document.items()} if isinstance(document, dict) else {}


def next_lineage(before: PoolLineage, cluster: PlacedCluster, now_s: float | None = None) -> PoolLineage:
    """Computes the lineage after `cluster` is applied."""
    now_s = time.time() if now_s is None else now_s
    pools = [pool.name for pool in cluster.pools]
    places = {engine_address(engine): engine.pool for engine in cluster.engines}
    parents = _parents(before, cluster, places)
    upstreams: dict[str, str] = {}
    former: dict[str, tuple[str, ...]] = {}
    renamed_at_s: dict[str, float] = {}
    # A new pool never gets the upstream of a removed pool: nginx may still send requests there.
    taken = {before.upstreams[parent] for parent in parents.values()} | set(before.upstreams.values())
    used = {name for pool in cluster.pools for name in (pool.name, *pool.aliases)}
    for pool in pools:
        if parent := parents.get(pool):
            upstreams[pool] = before.upstreams[parent]
            names = (*([parent] if parent != pool else []), *before.former.get(parent, ()))
            if former_names := tuple(name for name in dict.fromkeys(names) if name not in used)[:MAX_FORMER_NAMES]:
                former[pool] = former_names
                renamed_at_s[pool] = before.renamed_at_s.get(parent, now_s) if parent == pool else now_s
        else:
            upstreams[pool] = _free(pool, taken)
            taken.add(upstreams[pool])
    return PoolLineage(upstreams, former, renamed_at_s, {pool.name: pool.model for pool in cluster.pools}, places)


def _parents(before: PoolLineage, cluster: PlacedCluster, places: Mapping[str, str]) -> dict[str, str]:
    """{pool: its name before the change}; no entry for a new pool."""
    shared = Counter((pool, before.places[address]) for address, pool in places.items() if address in before.places)
    parents: dict[str, str] = {}
    # A pool that keeps its name and some of its engines is the same pool, wherever its other engines are.
    for pool, parent in sorted(shared, key=lambda pair: (pair[0] != pair[1], -shared[pair], pair)):
        if pool not in parents and parent not in parents.values() and parent in before.upstreams:
            parents[pool] = parent
    served = set(places.values())
    for name in (pool.name for pool in cluster.pools):
        if name in before.upstreams and name not in parents and name not in parents.values():
            parents[name] = name
    # When no engine is the same, the model decides; a remote pool has no other criterion.
    names = {pool.name for pool in cluster.pools}
    removed = [name for name in before.upstreams if name not in names and name not in parents.values()]
    for new_pool in cluster.pools:
        same = [name for name in removed if before.models[name] == new_pool.model and name not in parents.values()]
        if new_pool.name not in parents and len(same) == 1 and (new_pool.remote or new_pool.name in served):
            parents[new_pool.name] = same[0]
    return parents


def _free(pool: str, taken: set[str]) -> str:
    # Pool names have no underscore, so these names are free.
    candidates: Iterable[str] = (pool, *(f"{pool}_{number}" for number in range(2, len(taken) + 3)))
    return next(name for name in candidates if name not in taken)


def pool_naming(
    cluster: PlacedCluster, lineage: PoolLineage, accepted: Mapping[str, frozenset[str]], now_s: float | None = None
) -> PoolNaming:
    """Computes the names for the gateway.

    `accepted` has the model names that an engine accepts, by engine name. An engine without an entry gets the name that
    the client sent.
    """
    requested = {pool.name: name for pool in cluster.pools if (name := _requested_name(cluster, pool.name, accepted))}
    now_s = time.time() if now_s is None else now_s
    expiry_s = {pool: at_s + FORMER_FOR_S for pool, at_s in lineage.renamed_at_s.items() if pool not in requested}
    return PoolNaming(
        {pool: upstream for pool, upstream in lineage.upstreams.items() if upstream != pool},
        requested,
        {
            name: pool
            for pool, names in lineage.former.items()
            for name in names
            if pool in requested or now_s < expiry_s.get(pool, 0)
        },
        min((end_s for end_s in expiry_s.values() if now_s < end_s), default=None),
    )


def _requested_name(cluster: PlacedCluster, pool: str, accepted: Mapping[str, frozenset[str]]) -> str | None:
    """A value of `model` that all engines of the pool accept; None when they accept every name that clients may use."""
    known = [accepted[engine.name] for engine in cluster.engines if engine.pool == pool and engine.name in accepted]
    client_names = served_names(cluster, cluster.pool(pool))
    if not known or all(set(client_names) <= names for names in known):
        return None
    common = frozenset.intersection(*known)
    # Prefer a name that they also accept after their restart: then the gateway need not notice each restart in time.
    return accepted_name(client_names, common or frozenset.union(*known))


def accepted_name(preferred: list[str], accepted: frozenset[str]) -> str:
    """The first name of `preferred` that is accepted, else any accepted name. `accepted` is not empty."""
    return next((name for name in preferred if name in accepted), min(accepted))
