"""Bodies of the registry's requests and responses. No secret is in a response: of headers only the names."""

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
    """An unknown key is an error: it may be a setting that somebody counts on."""

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
    """An engine that runs already: vLLM on another host, SGLang, TGI, or an endpoint with an API of its own."""

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
    """The pool it joins. Or say `model`."""
    model: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    """Any name that clients use: it joins the pool that this name leads to, and shares its load."""
    address: Address | None = None
    """Where it runs, as host:port. Or say `url`, or `endpoint`."""
    url: Annotated[str, StringConstraints(max_length=2000)] | None = None
    """The same as http://host:port, with or without /v1."""
    endpoint: Endpoint | None = None
    """For one that does not speak OpenAI's API: how it is asked."""
    weight: int = Field(1, ge=1, le=100)
    """Its part of the pool's requests: beside one of weight 1, an engine of weight 2 is given twice as many at a time."""
    flavour: Flavour = "cuda"
    """What it runs on."""
    gpu_memory_gb: float | None = Field(None, gt=0)
    """Memory of its GPU, in GiB; with it the gateway gives it as many requests as such a GPU takes. null: 24."""


class WeightChange(RequestModel):
    """What may change while an engine serves."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"weight": 3}]})

    weight: int = Field(ge=1, le=100)
    """Its part of the pool's requests."""


class NewPool(RequestModel):
    """A model name: served by engines that are registered next, or elsewhere (`remote`)."""

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
    """The name clients write in `model`."""
    model: ServedModel
    """What it serves: a Hugging Face id, or the model's name at the endpoint elsewhere."""
    aliases: tuple[ModelAlias, ...] = Field((), max_length=50)
    """Further names clients may use."""
    max_model_len: int = Field(8192, ge=256)
    """Longest prompt plus answer, in tokens; told to clients."""
    fallback: Name | None = None
    """The pool that answers while this one is empty or failing."""
    media: Media = Media()
    """What one request may bring besides text."""
    balancing: Balancing = "conversation"
    """Which engine a request goes to."""
    max_in_flight: int | None = Field(None, ge=1, le=1_000_000)
    """Requests that the gateway gives each of its engines at a time. null: as many as a GPU of 24 GiB takes."""
    cache: Cache | None = None
    """null: every request reaches an engine."""
    remote: Remote | None = None
    """An OpenAI-compatible endpoint that serves it."""


class Removed(BaseModel):
    """It is gone; what it has in flight goes on."""

    name: str
    removed: bool = True


class EndpointResponse(BaseModel):
    """How an endpoint that does not speak OpenAI's API is asked."""

    url: str
    template: object
    headers: list[str]
    """Their names; a value may be a key."""
    answer: str
    model: str | None
    streams: bool


class EngineResponse(BaseModel):
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
    endpoint: EndpointResponse | None
    notice: str
    """What an operator should know; mostly empty."""


class RemoteResponse(BaseModel):
    """Where a pool is served instead of by engines."""

    url: str
    key_file: str | None
    ca_file: str | None


class PoolResponse(BaseModel):
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
    remote: RemoteResponse | None
    registered: bool


class ModelEngine(BaseModel):
    """An engine behind a model's name."""

    name: str
    state: str


class ModelResponse(BaseModel):
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


class EngineList(BaseModel):
    """All engines, those of cluster.yaml first."""

    engines: list[EngineResponse]


class PoolList(BaseModel):
    """All pools, also those that nobody serves yet."""

    pools: list[PoolResponse]


class ModelList(BaseModel):
    """Every name a client may use."""

    models: list[ModelResponse]


def in_flight(member: FleetMember) -> int | None:
    """Requests it works on, where they are counted."""
    return member.load.in_flight if member.load else None


def engine_response(member: FleetMember, effective: EffectiveConfig, notice: str = "") -> EngineResponse:
    one = member.engine
    return EngineResponse(
        name=one.name,
        pool=one.pool,
        address=f"{one.host}:{one.port}",
        flavour=one.flavour,
        weight=one.weight,
        state=member.health.shown.value,
        since=member.since.isoformat(timespec="seconds"),
        held=member.health.held,
        in_flight=in_flight(member),
        max_in_flight=member.in_flight,
        registered=not any(one.name == written.name for written in effective.written.engines),
        endpoint=_endpoint(one.endpoint) if one.endpoint else None,
        notice=notice,
    )


def pool_response(one: Pool, fleet: Fleet, effective: EffectiveConfig) -> PoolResponse:
    engines = effective.cluster.engines_of(one.name)
    return PoolResponse(
        name=one.name,
        model=one.model,
        names=list(one.names),
        engine_names=served_names(effective.cluster, one),
        fallback=one.fallback,
        up=_up(one, fleet),
        total=1 if one.remote else len(engines),
        engines=[engine.name for engine in engines],
        remote=RemoteResponse.model_validate(one.remote.model_dump()) if one.remote else None,
        registered=not any(one.name == written.name for written in effective.written.pools),
    )


def models_response(fleet: Fleet, effective: EffectiveConfig) -> ModelList:
    """Names as the gateway's /v1/models has them: of pools that can answer, and `auto` at the end."""
    leads_to = client_names(effective.cluster.served_pools)
    shown = [_model(name, one, fleet, effective) for name, one in leads_to.items()]
    if shown:
        up = sum(_up(one, fleet) for one in effective.cluster.served_pools)
        total = sum(model.total for model in shown if model.name == model.pool)
        shown.append(ModelResponse(name=AUTO, pool=None, model=AUTO, up=up, total=total, engines=[], remote=None))
    return ModelList(models=shown)


def client_names(pools: tuple[Pool, ...]) -> dict[str, Pool]:
    """What a client may write -> the pool it leads to. Where two pools run the same model, its id leads to the first of them."""
    names = {name: one for one in pools for name in (one.name, *one.aliases)}
    for one in pools:
        for name in one.names:
            names.setdefault(name, one)
    return names


def _model(name: str, one: Pool, fleet: Fleet, effective: EffectiveConfig) -> ModelResponse:
    engines = [ModelEngine(name=e.name, state=_state(fleet, e)) for e in effective.cluster.engines_of(one.name)]
    return ModelResponse(
        name=name,
        pool=one.name,
        model=one.model,
        up=_up(one, fleet),
        total=1 if one.remote else len(engines),
        engines=engines,
        remote=one.remote.host if one.remote else None,
    )


def _state(fleet: Fleet, one: Engine) -> str:
    return fleet.members[one.name].health.shown.value


def _up(one: Pool, fleet: Fleet) -> int:
    if one.remote:
        return int(fleet.remotes[one.name].reachable is not False)
    return sum(member.health.shown in SERVES for member in fleet.members_of(one.name))


def _endpoint(one: Endpoint) -> EndpointResponse:
    return EndpointResponse(
        url=one.url,
        template=one.template,
        headers=list(one.headers),
        answer=one.answer,
        model=one.model,
        streams=one.stream is not None,
    )
