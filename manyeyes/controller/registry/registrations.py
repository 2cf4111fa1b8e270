"""Registers engines and pools at run time: validates a change, persists it, then applies it, in that order.

A confirmed registration survives a kill -9. A rejected registration changes nothing.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, TypeVar

import structlog
from pydantic import BaseModel, ValidationError

from manyeyes.config import documents, validation
from manyeyes.config.engines import Engine
from manyeyes.config.loader import describe_errors
from manyeyes.config.placement import PlacedCluster
from manyeyes.config.pools import Pool
from manyeyes.controller.config_sync.effective_config import (
    NO_REGISTRATIONS,
    ChangeRejected,
    EffectiveConfig,
    Registrations,
    with_registrations,
)
from manyeyes.controller.registry.middleware import not_found, not_persisted
from manyeyes.controller.state_store import StateStore
from manyeyes.openai_error import ApiError

log = structlog.get_logger()
WEIGHTS = "weights"
HEAVIEST = 100
Section = TypeVar("Section", bound=BaseModel)


def load_registrations(state_store: StateStore, written: PlacedCluster) -> tuple[Registrations, list[str]]:
    """Loads the registrations from the state folder, and a sentence for each document that is not applied.

    An invalid document is renamed. A document that conflicts with the current cluster.yaml stays unchanged: it may be
    valid again with another cluster.yaml.
    """
    registered, left_out = NO_REGISTRATIONS, []
    for pool in _documents(state_store, "pools", Pool):
        registered, problem = _with(written, registered, replace(registered, pools=(*registered.pools, pool)))
        left_out += [f"pool {pool.name}, registered by API, is not applied: {problem}"] if problem else []
    for engine in _documents(state_store, "engines", Engine):
        registered, problem = _with(written, registered, replace(registered, engines=(*registered.engines, engine)))
        left_out += [f"{engine.name}, registered by API, is not applied: {problem}"] if problem else []
    return replace(registered, weights=_weights(state_store)), left_out


def _with(written: PlacedCluster, before: Registrations, after: Registrations) -> tuple[Registrations, str]:
    try:
        problems = validation.problems(with_registrations(written, after))
    except Exception as error:
        log.exception("registration_invalid")
        problems = [documents.describe_bug(error)]
    return (before, "; ".join(problems)) if problems else (after, "")


def _documents(state_store: StateStore, folder: str, section: type[Section]) -> list[Section]:
    items = []
    for name in state_store.names(folder):
        document = state_store.read(name)
        if document is None:
            if name in state_store.names(folder):
                state_store.set_aside(name, "it is empty")
            continue
        try:
            item = section.model_validate(document)
        except ValidationError as error:
            state_store.set_aside(name, "; ".join(describe_errors(error.errors(include_url=False), document)))
            continue
        if f"{folder}/{getattr(item, 'name', '')}" != name:
            state_store.set_aside(name, "its name differs from its file name")
            continue
        items.append(item)
    return items


def _weights(state_store: StateStore) -> tuple[tuple[str, int], ...]:
    document = state_store.read(WEIGHTS)
    if document is None:
        return ()
    if isinstance(document, dict) and all(
        isinstance(name, str) and type(weight) is int and 1 <= weight <= HEAVIEST for name, weight in document.items()
    ):
        return tuple(document.items())
    state_store.set_aside(WEIGHTS, f"expected names of engines with weights from 1 to {HEAVIEST}")
    return ()


class RegistrationService:
    """Changes the registrations, one change at a time. Every method raises ApiError; then nothing was changed."""

    def __init__(self, effective: EffectiveConfig, state_store: StateStore) -> None:
        self.effective = effective
        self.state_store = state_store
        self._lock = asyncio.Lock()

    @property
    def now(self) -> Registrations:
        return self.effective.registered

    def is_written(self, kind: str, name: str) -> bool:
        """Whether `engines` or `pools` of cluster.yaml contain this name."""
        written = self.effective.written
        return any(item.name == name for item in (written.engines if kind == "engines" else written.pools))

    async def add_engine(self, engine: Engine | Callable[[], Engine]) -> Engine:
        """Adds an engine. A function is called under the lock, for example to choose a port that must be free."""
        async with self._lock:
            made = engine() if callable(engine) else engine
            self._refuse_taken("engines", made.name, [known.name for known in self.effective.cluster.engines])
            after = replace(self.now, engines=(*self.now.engines, made))
            await self._take(
                after, f"engines/{made.name}", lambda: self.state_store.write(f"engines/{made.name}", _document(made))
            )
            return made

    async def remove_engine(self, name: str) -> None:
        async with self._lock:
            self._refuse_written("engines", name, "remove it from cluster.yaml, or drain it")
            await self._refuse_unknown("engines", name, [engine.name for engine in self.now.engines])
            after = replace(self.now, engines=tuple(engine for engine in self.now.engines if engine.name != name))
            await self._take(after, f"engines/{name}", lambda: self.state_store.remove(f"engines/{name}"))

    async def set_weight(self, name: str, weight: int) -> None:
        async with self._lock:
            if self.is_written("engines", name):
                weights = {engine_name: value for engine_name, value in self.now.weights if engine_name != name} | {
                    name: weight
                }
                after = replace(self.now, weights=tuple(weights.items()))
                await self._take(after, WEIGHTS, lambda: self.state_store.write(WEIGHTS, weights))
                return
            await self._refuse_unknown("engines", name, [engine.name for engine in self.now.engines])
            engines = tuple(
                engine.model_copy(update={"weight": weight}) if engine.name == name else engine
                for engine in self.now.engines
            )
            changed = next(engine for engine in engines if engine.name == name)
            after = replace(self.now, engines=engines)
            await self._take(
                after, f"engines/{name}", lambda: self.state_store.write(f"engines/{name}", _document(changed))
            )

    async def add_pool(self, pool: Pool) -> None:
        async with self._lock:
            self._refuse_taken("pools", pool.name, [known.name for known in self.effective.cluster.pools])
            after = replace(self.now, pools=(*self.now.pools, pool))
            await self._take(
                after, f"pools/{pool.name}", lambda: self.state_store.write(f"pools/{pool.name}", _document(pool))
            )

    async def remove_pool(self, name: str) -> None:
        async with self._lock:
            self._refuse_written("pools", name, "remove it from cluster.yaml")
            if inside := [engine.name for engine in self.effective.cluster.engines if engine.pool == name]:
                raise ApiError(
                    409, "pool_not_empty", f"Pool '{name}' still has engines: {', '.join(inside)}. Remove them first."
                )
            await self._refuse_unknown("pools", name, [known.name for known in self.now.pools])
            after = replace(self.now, pools=tuple(pool for pool in self.now.pools if pool.name != name))
            await self._take(after, f"pools/{name}", lambda: self.state_store.remove(f"pools/{name}"))

    async def _take(self, after: Registrations, document: str, store: Callable[[], bool]) -> None:
        """Validates, stores and applies `after`. `document` is the name of the document that `store` changes.

        It is restored when cluster.yaml changed during the write and conflicts with `after`.
        """
        if problems := validation.problems(with_registrations(self.effective.written, after)):
            raise ApiError(409, "breaks_rules", f"{'; '.join(problems)}.")
        # In a thread: a hanging disk must not block DNS.
        former = await asyncio.to_thread(self.state_store.read, document)
        if not await asyncio.to_thread(store):
            raise not_persisted()
        try:
            self.effective.apply_registrations(after)
        except ChangeRejected as refused:
            await asyncio.to_thread(self.state_store.restore, document, former)
            raise ApiError(409, "breaks_rules", f"{'; '.join(refused.problems)}.") from refused

    def _refuse_taken(self, kind: str, name: str, there: list[str]) -> None:
        if name in there:
            origin = (
                "it is in cluster.yaml"
                if self.is_written(kind, name)
                else f"it is registered, and DELETE /api/{kind}/{name} removes it"
            )
            raise ApiError(
                409,
                "name_taken",
                f"The {_word(kind)} '{name}' already exists: {origin}.",
                "name",
            )

    def _refuse_written(self, kind: str, name: str, instead: str) -> None:
        if self.is_written(kind, name):
            raise ApiError(
                409,
                "is_written",
                f"The {_word(kind)} '{name}' is in cluster.yaml, so the API cannot remove it: {instead}.",
            )

    async def _refuse_unknown(self, kind: str, name: str, effective: list[str]) -> None:
        """Raises ApiError for an unknown name. A stored document that is not applied can be removed too."""
        if name not in effective and f"{kind}/{name}" not in await asyncio.to_thread(self.state_store.names, kind):
            known = self.effective.cluster.engines if kind == "engines" else self.effective.cluster.pools
            raise not_found(_word(kind), name, [item.name for item in known])


def _word(kind: str) -> str:
    return kind.removesuffix("s")


def _document(section: BaseModel) -> dict[str, object]:
    """The section as an operator would write it: without default values."""
    return section.model_dump(mode="json", exclude_defaults=True)


ADAPTER_DOCUMENT = "adapter"


class AdapterConfigWriter:
    """Writes the adapter's configuration to the state folder whenever it changes."""

    def __init__(self, state_store: StateStore) -> None:
        self.state_store = state_store
        self._written: dict[str, Any] | None = None

    def write(self, cluster: PlacedCluster) -> None:
        """Called with each new effective cluster."""
        document = adapter_document(cluster)
        if document != self._written:
            self._written = document
            self.state_store.write_later(ADAPTER_DOCUMENT, document).add_done_callback(self._forget_failed)

    def _forget_failed(self, write: Future[bool]) -> None:
        """Lets the next change write the document again."""
        if write.cancelled() or write.exception() or not write.result():
            self._written = None


def adapter_document(cluster: PlacedCluster) -> dict[str, Any]:
    """The adapter's configuration: its limits, and every engine with an endpoint. Pure."""
    return {
        "max_body_mb": cluster.gateway.max_body_mb,
        "limits": cluster.adapter.model_dump(mode="json"),
        "engines": [
            {
                "name": engine.name,
                "port": engine.port,
                "pool": engine.pool,
                "model": cluster.pool_of(engine).model,
                "names": list(cluster.pool_of(engine).names),
                "endpoint": engine.endpoint.model_dump(mode="json", exclude_defaults=True),
            }
            for engine in cluster.engines
            if engine.endpoint
        ],
    }


def free_port(cluster: PlacedCluster) -> int:
    """The first port of the adapter that no engine uses. Raises ApiError when there is none."""
    taken = {engine.port for engine in cluster.engines if engine.endpoint}
    first, count = cluster.adapter.first_port, cluster.adapter.ports
    for port in range(first, first + count):
        if port not in taken:
            return port
    raise ApiError(
        409, "adapter_full", f"All {count} ports of the adapter are in use. Raise adapter.ports in cluster.yaml."
    )
