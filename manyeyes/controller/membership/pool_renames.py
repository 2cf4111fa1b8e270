"""Pools that get another name while they serve: which pool is the one that had another name before, and how its engines are asked.

A pool is the same pool under another name when its engines, known by where they listen, are the same. It keeps its upstream in
nginx, so members, conversations and requests in flight stay. Its engines were started with the old name: until all of them accept
the new one they are asked by a name that each of them accepts, and the old name leads to the pool as well.
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
"""An old name is answered for so long at least: a client's open connections lead to nginx's processes of before and after the reload
for up to 15 s (keepalive_min_timeout in nginx/conf.d/api.inc), and no one of them may refuse both names."""
MOST_FORMER = 8
"""Old names of one pool that are answered at a time."""


@dataclass(frozen=True)
class PoolLineage:
    """Pools by name, and what they were before."""

    upstreams: Mapping[str, str] = field(default_factory=dict)
    """Pool -> the name of its upstream: the first name that it had."""
    former: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Pool -> names it had before, newest first."""
    renamed_at_s: Mapping[str, float] = field(default_factory=dict)
    """Pool -> when it got its name, in seconds since 1970, where it had another one before."""
    models: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    """Where an engine listens -> its pool."""

    def document(self) -> dict[str, Any]:
        """For manyeyes/controller/state_store.py."""
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
    """What `document()` gave. Nothing is known where it is something else."""
    if not isinstance(document, dict):
        return PoolLineage()
    upstreams, models, places = (_texts(document.get(key)) for key in ("upstreams", "models", "places"))
    former = document.get("former")
    names = {
        str(pool): tuple(str(name) for name in found)
        for pool, found in (former.items() if isinstance(former, dict) else ())
        if isinstance(found, list)
    }
    found = document.get("renamed_at_s")
    times = {
        str(pool): float(at_s)
        for pool, at_s in (found.items() if isinstance(found, dict) else ())
        if isinstance(at_s, int | float)
    }
    return PoolLineage(upstreams, names, times, models, places) if set(upstreams) == set(models) else PoolLineage()


def _texts(found: Any) -> dict[str, str]:
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def next_lineage(before: PoolLineage, cluster: PlacedCluster, now_s: float | None = None) -> PoolLineage:
    """The lineage once `cluster` is in force."""
    now_s = time.time() if now_s is None else now_s
    pools = [pool.name for pool in cluster.pools]
    places = {engine_address(engine): engine.pool for engine in cluster.engines}
    parents = _parents(before, cluster, places)
    upstreams: dict[str, str] = {}
    former: dict[str, tuple[str, ...]] = {}
    renamed_at_s: dict[str, float] = {}
    # No new pool gets the upstream of one that is just going: nginx may still send it requests.
    taken = {before.upstreams[parent] for parent in parents.values()} | set(before.upstreams.values())
    used = {name for pool in cluster.pools for name in (pool.name, *pool.aliases)}
    for pool in pools:
        if parent := parents.get(pool):
            upstreams[pool] = before.upstreams[parent]
            names = (*([parent] if parent != pool else []), *before.former.get(parent, ()))
            if kept := tuple(name for name in dict.fromkeys(names) if name not in used)[:MOST_FORMER]:
                former[pool] = kept
                renamed_at_s[pool] = before.renamed_at_s.get(parent, now_s) if parent == pool else now_s
        else:
            upstreams[pool] = _free(pool, taken)
            taken.add(upstreams[pool])
    return PoolLineage(upstreams, former, renamed_at_s, {pool.name: pool.model for pool in cluster.pools}, places)


def _parents(before: PoolLineage, cluster: PlacedCluster, places: Mapping[str, str]) -> dict[str, str]:
    """{pool: what it was called before}; nothing for a pool that is new."""
    shared = Counter((pool, before.places[where]) for where, pool in places.items() if where in before.places)
    parents: dict[str, str] = {}
    # A pool that keeps its name and some of its engines stays what it is, wherever the others went.
    for pool, parent in sorted(shared, key=lambda pair: (pair[0] != pair[1], -shared[pair], pair)):
        if pool not in parents and parent not in parents.values() and parent in before.upstreams:
            parents[pool] = parent
    served = set(places.values())
    for name in (pool.name for pool in cluster.pools):
        if name in before.upstreams and name not in parents and name not in parents.values():
            parents[name] = name
    # Where all engines are others, the model tells; a pool that is served elsewhere has nothing else.
    names = {pool.name for pool in cluster.pools}
    gone = [name for name in before.upstreams if name not in names and name not in parents.values()]
    for one in cluster.pools:
        same = [name for name in gone if before.models[name] == one.model and name not in parents.values()]
        if one.name not in parents and len(same) == 1 and (one.remote or one.name in served):
            parents[one.name] = same[0]
    return parents


def _free(pool: str, taken: set[str]) -> str:
    # No pool's name has an underscore.
    candidates: Iterable[str] = (pool, *(f"{pool}_{number}" for number in range(2, len(taken) + 3)))
    return next(name for name in candidates if name not in taken)


def pool_naming(
    cluster: PlacedCluster, lineage: PoolLineage, accepted: Mapping[str, frozenset[str]], now_s: float | None = None
) -> PoolNaming:
    """What the gateway has to know. `accepted` are the names that an engine accepts, by its name; without an entry it is asked as clients ask."""
    asked = {pool.name: name for pool in cluster.pools if (name := _asked(cluster, pool.name, accepted))}
    now_s = time.time() if now_s is None else now_s
    ends_s = {pool: at_s + FORMER_FOR_S for pool, at_s in lineage.renamed_at_s.items() if pool not in asked}
    return PoolNaming(
        {pool: upstream for pool, upstream in lineage.upstreams.items() if upstream != pool},
        asked,
        {
            name: pool
            for pool, names in lineage.former.items()
            for name in names
            if pool in asked or now_s < ends_s.get(pool, 0)
        },
        min((end_s for end_s in ends_s.values() if now_s < end_s), default=None),
    )


def _asked(cluster: PlacedCluster, pool: str, accepted: Mapping[str, frozenset[str]]) -> str | None:
    """A `model` that all of its engines accept; None where they accept all names that clients may use."""
    known = [accepted[engine.name] for engine in cluster.engines if engine.pool == pool and engine.name in accepted]
    wanted = served_names(cluster, cluster.pool(pool))
    if not known or all(set(wanted) <= names for names in known):
        return None
    common = frozenset.intersection(*known)
    # Best one that they will accept after their restart too: then the gateway need not learn of each restart in time.
    return accepted_name(wanted, common or frozenset.union(*known))


def accepted_name(wanted: list[str], accepted: frozenset[str]) -> str:
    """The first of the wanted names that is accepted, else any accepted one. `accepted` is not empty."""
    return next((name for name in wanted if name in accepted), min(accepted))
