"""The whole of cluster.yaml, as it is written; and its schema, told to editors (JSON Schema) and to people (docs/configuration.md)."""

import json
from collections.abc import Iterator
from enum import Enum
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Literal, get_args

from pydantic import Field
from pydantic.fields import FieldInfo

from manyeyes.config.custom_endpoint import Adapter
from manyeyes.config.engines import Engine
from manyeyes.config.fields import Name, Section
from manyeyes.config.gateway import Controller, Gateway, GpuSharing, Images, Models, Network, Shutdown, WebUi
from manyeyes.config.kubernetes import Kubernetes
from manyeyes.config.observability import Logs, Monitoring, Tracing
from manyeyes.config.pools import Flavour, Pool, Route


class Cluster(Section):
    """Everything an operator may change. Secrets and host paths come from the environment instead."""

    name: Name = "manyeyes"
    """The Compose project: prefix of containers, network and volumes."""
    flavour: Literal["auto"] | Flavour = "auto"
    """With `engines: auto`: cuda where GPUs are found, else cpu. `make up FLAVOUR=` overrides it."""
    pools: tuple[Pool, ...] = Field(min_length=1)
    """One for every model name."""
    engines: Literal["auto"] | tuple[Engine, ...] = "auto"
    """auto: one engine per GPU found (on a host without: `cpu_engines`), dealt out to the pools by `gpu_weight`. Or a list."""
    cpu_engines: int = Field(2, ge=1, le=16)
    """With `engines: auto` on a host without GPUs: how many engines. Each takes about 1.5 GiB plus its model."""
    cpu_threads: int = Field(4, ge=1, le=256)
    """Threads of one engine on CPU; all engines together best have as many as there are cores. The tiny model takes one."""
    emulated_engines: int = Field(3, ge=1, le=64)
    """With `engines: auto` and the emulated flavour: how many GPUs are emulated."""
    auto: tuple[Route, ...] = ()
    """Where `model: auto` goes, by rule; a client's X-Latency-Budget-Ms passes over pools that are slower. Empty: the pools in
    this file's order."""
    gpu_sharing: GpuSharing = "time_slicing"
    """How engines with a `share` below 1 use one GPU: in turns, or at once through NVIDIA's MPS."""
    gateway: Gateway = Gateway()
    """Nginx."""
    controller: Controller = Controller()
    """Probes and membership."""
    adapter: Adapter = Adapter()
    """Endpoints that do not speak OpenAI's API."""
    webui: WebUi = WebUi()
    """The page."""
    monitoring: Monitoring = Monitoring()
    """Prometheus and Grafana."""
    logs: Logs = Logs()
    """Log lines."""
    tracing: Tracing = Tracing()
    """Spans of requests."""
    network: Network = Network()
    """The cluster's network."""
    models: Models = Models()
    """Weights and caches."""
    shutdown: Shutdown = Shutdown()
    """How engines stop."""
    images: Images = Images()
    """Image pins."""
    kubernetes: Kubernetes = Kubernetes()
    """What differs where the cluster runs on Kubernetes (make k8s)."""

    def pool(self, name: str) -> Pool:
        """The pool called `name`; KeyError if there is none."""
        for pool in self.pools:
            if pool.name == name:
                return pool
        raise KeyError(name)

    @property
    def listed_engines(self) -> tuple[Engine, ...]:
        """Those in the file; none with `engines: auto`."""
        return () if self.engines == "auto" else self.engines


PLURALS = {"pools": "pools[]", "engines": "engines[]"}


def sections(place: str = "", section: type[Section] = Cluster) -> Iterator[tuple[str, type[Section]]]:
    """('', Cluster), ('pools[]', Pool), ('pools[].media', Media) and so on, in the schema's order."""
    yield place, section
    for key, field in section.model_fields.items():
        for inner in _section_types(field.annotation):
            name = PLURALS.get(key, key)
            yield from sections(f"{place}.{name}" if place else name, inner)


def _section_types(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    else:
        for part in get_args(annotation):
            yield from _section_types(part)


def json_schema() -> str:
    """For `# yaml-language-server: $schema=` on top of cluster.yaml."""
    return json.dumps(Cluster.model_json_schema(), indent=2) + "\n"


def markdown() -> str:
    """docs/configuration.md."""
    lines = [
        "# Configuration",
        "",
        "<!-- Made by `make docs` from the schema in config/. Do not edit. -->",
        "",
        "Everything an operator may change stands in `config/cluster.yaml`; a section or key that is left out has the value below.",
        "`make check-config` reads the file and prints every problem at once. Examples are in `config/examples/`.",
        "Secrets and host paths come from the environment (`.env.example`).",
        "",
    ]
    for place, section in sections():
        lines += [
            f"## {place or 'Top level'}",
            "",
            _first_line(section),
            "",
            "| key | default | meaning |",
            "|---|---|---|",
        ]
        for key, field in section.model_fields.items():
            lines.append(f"| `{key}` | {_default(field)} | {_cell(field.description or '')} |")
        lines.append("")
    return "\n".join(lines)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "*required*"
    value = field.default
    if isinstance(value, Section):
        return "see below"
    if isinstance(value, IPv4Address | IPv4Network | Enum):
        value = str(value)
    return f"`{json.dumps(value)}`"


def _first_line(section: type[Section]) -> str:
    return (section.__doc__ or "").strip().splitlines()[0]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
