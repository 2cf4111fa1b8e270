"""What callers send."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from manyeyes.config.base import ModelAlias, Name, ServedModel
from manyeyes.config.custom_endpoint import Endpoint
from manyeyes.config.engines import Address
from manyeyes.config.pools import Balancing, Cache, Flavour, Media, Remote


class Form(BaseModel):
    """An unknown key is an error: it may be a setting that somebody counts on."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


FOREIGN: dict[str, Any] = {
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


class NewEngine(Form):
    """An engine that runs already: vLLM on another host, SGLang, TGI, or an endpoint with an API of its own."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "gpu-7", "pool": "qwen3-vl-8b", "address": "10.0.0.7:8000", "weight": 2},
                {"name": "other-host", "model": "Qwen/Qwen3-VL-8B-Instruct-FP8", "url": "http://10.0.0.8:8000/v1"},
                FOREIGN,
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


class Change(Form):
    """What may change while an engine serves."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"weight": 3}]})

    weight: int = Field(ge=1, le=100)
    """Its part of the pool's requests."""


class NewPool(Form):
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
