"""What the API tells of engines, pools and models. No secret is in it: of headers only the names."""

from pydantic import BaseModel

from manyeyes.config.custom_endpoint import Endpoint
from manyeyes.config.engines import Engine
from manyeyes.config.pools import Pool
from manyeyes.config.routes import AUTO
from manyeyes.controller.config_sync.effective_config import InForce
from manyeyes.controller.health.state_machine import SERVES
from manyeyes.controller.membership.fleet import Fleet, Member
from manyeyes.controller.registry.drain_routes import in_flight
from manyeyes.engine.vllm_flags import served_names


class ShownEndpoint(BaseModel):
    """How an endpoint that does not speak OpenAI's API is asked."""

    url: str
    template: object
    headers: list[str]
    """Their names; a value may be a key."""
    answer: str
    model: str | None
    streams: bool


class ShownEngine(BaseModel):
    """One engine."""

    name: str
    pool: str
    address: str
    """host:port; for an endpoint that does not speak OpenAI's API, the adapter's."""
    flavour: str
    weight: int
    state: str
    since: str
    held: bool
    """Out of rotation on somebody's word."""
    in_flight: int | None
    """Requests it works on. null: not known."""
    max_in_flight: int
    """Requests that the gateway gives it at a time."""
    registered: bool
    """By API. false: it stands in cluster.yaml."""
    endpoint: ShownEndpoint | None
    notice: str
    """What an operator should know; mostly empty."""


class ShownRemote(BaseModel):
    """Where a pool is served instead of by engines."""

    url: str
    key_file: str | None
    ca_file: str | None


class ShownPool(BaseModel):
    """One pool: the engines that serve one model name."""

    name: str
    model: str
    names: list[str]
    """Every name a client may use for it."""
    engine_names: list[str]
    """What its engines must answer to (vLLM's --served-model-name): also the names of pools that fall back to it, and `auto`."""
    fallback: str | None
    up: int
    """Engines that get requests; 1 for a pool served elsewhere."""
    total: int
    engines: list[str]
    remote: ShownRemote | None
    registered: bool


class ModelEngine(BaseModel):
    """An engine behind a model's name."""

    name: str
    state: str


class ShownModel(BaseModel):
    """One name that a client may write in `model`."""

    name: str
    pool: str | None
    """null for `auto`, which chooses by rule."""
    model: str
    up: int
    total: int
    engines: list[ModelEngine]
    remote: str | None
    """The host that serves it, where it is served elsewhere."""


class Engines(BaseModel):
    """All engines, those of cluster.yaml first."""

    engines: list[ShownEngine]


class Pools(BaseModel):
    """All pools, also those that nobody serves yet."""

    pools: list[ShownPool]


class Models(BaseModel):
    """Every name a client may use."""

    models: list[ShownModel]


def engine(member: Member, in_force: InForce, notice: str = "") -> ShownEngine:
    one = member.engine
    return ShownEngine(
        name=one.name,
        pool=one.pool,
        address=f"{one.host}:{one.port}",
        flavour=one.flavour,
        weight=one.weight,
        state=member.known.shown.value,
        since=member.since.isoformat(timespec="seconds"),
        held=member.known.held,
        in_flight=in_flight(member),
        max_in_flight=member.in_flight,
        registered=not any(one.name == written.name for written in in_force.written.explicit_engines),
        endpoint=_endpoint(one.endpoint) if one.endpoint else None,
        notice=notice,
    )


def pool(one: Pool, fleet: Fleet, in_force: InForce) -> ShownPool:
    engines = _of_pool(one, in_force)
    return ShownPool(
        name=one.name,
        model=one.model,
        names=list(one.names),
        engine_names=served_names(in_force.cluster, one),
        fallback=one.fallback,
        up=_up(one, fleet),
        total=1 if one.remote else len(engines),
        engines=[engine.name for engine in engines],
        remote=ShownRemote.model_validate(one.remote.model_dump()) if one.remote else None,
        registered=not any(one.name == written.name for written in in_force.written.pools),
    )


def models(fleet: Fleet, in_force: InForce) -> Models:
    """Names as the gateway's /v1/models has them: of pools that can answer, and `auto` at the end."""
    leads_to = client_names(in_force.cluster.served_pools)
    shown = [_model(name, one, fleet, in_force) for name, one in leads_to.items()]
    if shown:
        up = sum(_up(one, fleet) for one in in_force.cluster.served_pools)
        total = sum(model.total for model in shown if model.name == model.pool)
        shown.append(ShownModel(name=AUTO, pool=None, model=AUTO, up=up, total=total, engines=[], remote=None))
    return Models(models=shown)


def client_names(pools: tuple[Pool, ...]) -> dict[str, Pool]:
    """What a client may write -> the pool it leads to. Where two pools run the same model, its id leads to the first of them."""
    names = {name: one for one in pools for name in (one.name, *one.aliases)}
    for one in pools:
        for name in one.names:
            names.setdefault(name, one)
    return names


def _model(name: str, one: Pool, fleet: Fleet, in_force: InForce) -> ShownModel:
    engines = [ModelEngine(name=e.name, state=_state(fleet, e)) for e in _of_pool(one, in_force)]
    return ShownModel(
        name=name,
        pool=one.name,
        model=one.model,
        up=_up(one, fleet),
        total=1 if one.remote else len(engines),
        engines=engines,
        remote=one.remote.host if one.remote else None,
    )


def _of_pool(one: Pool, in_force: InForce) -> list[Engine]:
    return [engine for engine in in_force.cluster.explicit_engines if engine.pool == one.name]


def _state(fleet: Fleet, one: Engine) -> str:
    return fleet.members[one.name].known.shown.value


def _up(one: Pool, fleet: Fleet) -> int:
    if one.remote:
        return int(fleet.remotes[one.name].reachable is not False)
    return sum(member.known.shown in SERVES for member in fleet.of_pool(one.name))


def _endpoint(one: Endpoint) -> ShownEndpoint:
    return ShownEndpoint(
        url=one.url,
        template=one.template,
        headers=list(one.headers),
        answer=one.answer,
        model=one.model,
        streams=one.stream is not None,
    )
