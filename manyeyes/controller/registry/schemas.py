"""Bodies of the registry's requests and responses. Responses contain no secrets: of headers only the names."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from manyeyes.config.custom_endpoint import Endpoint
from manyeyes.config.engines import Address, Engine
from manyeyes.config.fields import ModelAlias, Name, ServedModel
from manyeyes.config.pools import AUTO, Balancing, Cache, Flavour, Media, Pool, Remote
from manyeyes.controller.config_sync.effective_config import EffectiveConfig
from manyeyes.controller.health.states import SERVES
from manyeyes.controller.membership.fleet import Fleet
from manyeyes.controller.membership.membership_store import FleetMember
from manyeyes.engine.vllm_flags import served_names


class RequestModel(BaseModel):
    """A request body. An unknown key is an error, because it may be a misspelled setting."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


CUSTOM_ENDPOINT_EXAMPLE: dict[str, Any] = {
    "name": "caption-0",
    "pool": "captions",
    "endpoint": {
        "url": "https://api.example.com/generate",
        "template": {
            "model": "{MODEL_NAME}",
            "input": {"prompt": "{USER_PROMPT}", "images": ["{IMAGE_URL}"]},
            "parameters": {"temperature": "{MODEL_TEMPERATURE}", "incremental": "{STREAM}"},
        },
        "headers": {"Authorization": "Bearer {SECRET:captions.key}"},
        "answer": "$.output.text",
        "stream": {"delta": "$.output.text"},
        "usage": {"prompt_tokens": "$.usage.input_tokens", "completion_tokens": "$.usage.output_tokens"},
    },
}


class NewEngine(RequestModel):
    """An engine that already runs: vLLM on another host, SGLang, TGI, or an endpoint with another API."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "gpu-7", "pool": "qwen3-vl-8b", "address": "10.0.0.7:8000", "weight": 2},
                {"name": "other-host", "model": "Qwen/Qwen3-VL-8B-Instruct-FP8", "url": "http://10.0.0.8:8000/v1"},
                CUSTOM_ENDPOINT_EXAMPLE,
            ]
        }
    )

    name: Name
    """Its name in headers, metrics and pages."""
    pool: Name | None = None
    """The pool that it joins. Give either `pool` or `model`."""
    model: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    """A model name that clients use. The engine joins the pool of this name."""
    address: Address | None = None
    """Its address, as host:port. Give one of `address`, `url` and `endpoint`."""
    url: Annotated[str, StringConstraints(max_length=2000)] | None = None
    """Its address as a URL: http://host:port, with or without /v1."""
    endpoint: Endpoint | None = None
    """For an engine without OpenAI's API: how to send requests to it."""
    weight: int = Field(1, ge=1, le=100)
    """Its share of the pool's requests: an engine of weight 2 gets twice as many requests as one of weight 1."""
    flavour: Flavour = "cuda"
    """The hardware or software it runs on."""
    gpu_memory_gb: float | None = Field(None, gt=0)
    """Memory of its GPU, in GiB. It decides how many requests the gateway sends it at a time. null: 24."""


class WeightChange(RequestModel):
    """The settings that can change while an engine serves."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"weight": 3}]})

    weight: int = Field(ge=1, le=100)
    """Its share of the pool's requests."""


class NewPool(RequestModel):
    """A model name. It is served by engines that are registered later, or by a remote endpoint (`remote`)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "qwen3-vl-32b", "model": "Qwen/Qwen3-VL-32B-Instruct-FP8", "aliases": ["large"]},
                {
                    "name": "cloud",
                    "model": "qwen3-vl-plus",
                    "remote": {"url": "https://api.example.com/compatible-mode/v1", "key_file": "cloud.key"},
                },
                {
                    "name": "captions",
                    "model": "captioner-2",
                    "media": {"images_per_prompt": 1, "videos_per_prompt": 0},
                },
            ]
        }
    )

    name: Name
    """The name that clients send in `model`."""
    model: ServedModel
    """The model: a Hugging Face id, or the model's name at the remote endpoint."""
    aliases: tuple[ModelAlias, ...] = Field((), max_length=50)
    """More names that clients may use."""
    max_model_len: int = Field(8192, ge=256)
    """Maximum length of prompt plus answer, in tokens. Clients see it in /v1/models."""
    fallback: Name | None = None
    """The pool that answers while this pool is empty or failing."""
    media: Media = Media()
    """The media that a request may contain."""
    balancing: Balancing = "conversation"
    """How an engine is chosen for a request."""
    max_in_flight: int | None = Field(None, ge=1, le=1_000_000)
    """Requests that the gateway sends to each of its engines at a time. null: the number for a GPU of 24 GiB."""
    cache: Cache | None = None
    """Settings of the response cache. null: every request is sent to an engine."""
    remote: Remote | None = None
    """An OpenAI-compatible endpoint that serves the pool."""


class Removed(BaseModel):
    """Confirms the removal. Requests in flight continue."""

    name: str
    removed: bool = True


class EndpointResponse(BaseModel):
    """How requests are sent to an endpoint without OpenAI's API."""

    url: str
    template: object
    headers: list[str]
    """Names of the headers, without values: a value may be a key."""
    answer: str
    model: str | None
    streams: bool


class EngineResponse(BaseModel):
    """One engine."""

    name: str
    pool: str
    address: str
    """host:port. For an endpoint without OpenAI's API, this is the adapter's address."""
    flavour: str
    weight: int
    state: str
    since: str
    held: bool
    """It is drained."""
    in_flight: int | None
    """Requests that it processes. null: unknown."""
    max_in_flight: int
    """Requests that the gateway sends it at a time."""
    registered: bool
    """true: registered by API. false: from cluster.yaml."""
    endpoint: EndpointResponse | None
    notice: str
    """A warning for the operator; usually empty."""


class RemoteResponse(BaseModel):
    """The remote endpoint that serves a pool."""

    url: str
    key_file: str | None
    ca_file: str | None


class PoolResponse(BaseModel):
    """One pool: the engines that serve one model name."""

    name: str
    model: str
    names: list[str]
    """Every name that clients may use for it."""
    engine_names: list[str]
    """The names that its engines must serve (vLLM's --served-model-name). They include `auto` and the names of pools
    that fall back to this pool."""
    fallback: str | None
    up: int
    """Engines that get requests; 1 for a remote pool."""
    total: int
    engines: list[str]
    remote: RemoteResponse | None
    registered: bool


class ModelEngine(BaseModel):
    """An engine that serves a model name."""

    name: str
    state: str


class ModelResponse(BaseModel):
    """One name that clients may send in `model`."""

    name: str
    pool: str | None
    """null for `auto`, which chooses a pool by rules."""
    model: str
    up: int
    total: int
    engines: list[ModelEngine]
    remote: str | None
    """The host of the remote endpoint, for a remote pool."""


class EngineList(BaseModel):
    """All engines, those of cluster.yaml first."""

    engines: list[EngineResponse]


class PoolList(BaseModel):
    """All pools, including those that no engine serves yet."""

    pools: list[PoolResponse]


class ModelList(BaseModel):
    """Every name that clients may use."""

    models: list[ModelResponse]


def in_flight(member: FleetMember) -> int | None:
    """Requests that the engine processes; None when unknown."""
    return member.load.in_flight if member.load else None


def engine_response(member: FleetMember, effective: EffectiveConfig, notice: str = "") -> EngineResponse:
    engine = member.engine
    return EngineResponse(
        name=engine.name,
        pool=engine.pool,
        address=f"{engine.host}:{engine.port}",
        flavour=engine.flavour,
        weight=engine.weight,
        state=member.health.shown.value,
        since=member.since.isoformat(timespec="seconds"),
        held=member.health.drained,
        in_flight=in_flight(member),
        max_in_flight=member.in_flight,
        registered=not any(engine.name == written.name for written in effective.written.engines),
        endpoint=_endpoint(engine.endpoint) if engine.endpoint else None,
        notice=notice,
    )


def pool_response(pool: Pool, fleet: Fleet, effective: EffectiveConfig) -> PoolResponse:
    engines = effective.cluster.engines_of(pool.name)
    return PoolResponse(
        name=pool.name,
        model=pool.model,
        names=list(pool.names),
        engine_names=served_names(effective.cluster, pool),
        fallback=pool.fallback,
        up=_up(pool, fleet),
        total=1 if pool.remote else len(engines),
        engines=[engine.name for engine in engines],
        remote=RemoteResponse.model_validate(pool.remote.model_dump()) if pool.remote else None,
        registered=not any(pool.name == written.name for written in effective.written.pools),
    )


def models_response(fleet: Fleet, effective: EffectiveConfig) -> ModelList:
    """The names of the gateway's /v1/models: those of served pools, then `auto`."""
    leads_to = client_names(effective.cluster.served_pools)
    shown = [_model(name, pool, fleet, effective) for name, pool in leads_to.items()]
    if shown:
        up = sum(_up(pool, fleet) for pool in effective.cluster.served_pools)
        total = sum(model.total for model in shown if model.name == model.pool)
        shown.append(ModelResponse(name=AUTO, pool=None, model=AUTO, up=up, total=total, engines=[], remote=None))
    return ModelList(models=shown)


def client_names(pools: tuple[Pool, ...]) -> dict[str, Pool]:
    """{name that clients may send: its pool}. When two pools run the same model, its id belongs to the first pool."""
    names = {name: pool for pool in pools for name in (pool.name, *pool.aliases)}
    for pool in pools:
        for name in pool.names:
            names.setdefault(name, pool)
    return names


def _model(name: str, pool: Pool, fleet: Fleet, effective: EffectiveConfig) -> ModelResponse:
    engines = [ModelEngine(name=e.name, state=_state(fleet, e)) for e in effective.cluster.engines_of(pool.name)]
    return ModelResponse(
        name=name,
        pool=pool.name,
        model=pool.model,
        up=_up(pool, fleet),
        total=1 if pool.remote else len(engines),
        engines=engines,
        remote=pool.remote.host if pool.remote else None,
    )


def _state(fleet: Fleet, engine: Engine) -> str:
    return fleet.members[engine.name].health.shown.value


def _up(pool: Pool, fleet: Fleet) -> int:
    if pool.remote:
        return int(fleet.remotes[pool.name].reachable is not False)
    return sum(member.health.shown in SERVES for member in fleet.members_of(pool.name))


def _endpoint(endpoint: Endpoint) -> EndpointResponse:
    return EndpointResponse(
        url=endpoint.url,
        template=endpoint.template,
        headers=list(endpoint.headers),
        answer=endpoint.answer,
        model=endpoint.model,
        streams=endpoint.stream is not None,
    )
