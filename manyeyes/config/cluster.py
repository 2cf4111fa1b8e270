"""The whole of cluster.yaml, as it is written; and its schema, told to editors (JSON Schema) and to people (docs/configuration.md)."""

import json
from collections.abc import Iterator
from enum import Enum
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, StringConstraints
from pydantic.fields import FieldInfo

from manyeyes.config.custom_endpoint import Adapter
from manyeyes.config.engines import Engine
from manyeyes.config.fields import Name, Section
from manyeyes.config.gateway import Controller, Gateway, GpuSharing, Images, Models, Network, Shutdown, WebUi
from manyeyes.config.observability import Logs, Monitoring, Tracing
from manyeyes.config.pools import Flavour, Pool, Route

DomainName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")]


class Autoscaling(Section):
    """What KEDA, or a plain HorizontalPodAutoscaler, adds pods at. `pools[].scaling` says how many at least and at most, and how slowly."""

    waiting: int = Field(4, ge=1)
    """Requests in the queue of one engine."""
    hidden_queue: int = Field(4, ge=1)
    """Requests inside one engine that neither run nor wait, because their pictures are being prepared. Not with a plain HPA."""
    p95_s: float = Field(10, gt=0)
    """Seconds that 95 % of the pool's requests take, where `pools[].scaling.target.p95_s` says nothing. Not with a plain HPA."""
    max_engines: int | None = Field(None, ge=1)
    """Engines of a pool at most, where its `scaling.max` says nothing. null: twice as many as are laid out."""


class Kubernetes(Section):
    """The same pools on a Kubernetes cluster."""

    namespace: Name = "manyeyes"
    """Where everything is put."""
    cluster_domain: DomainName = "cluster.local"
    """Suffix of the cluster's own names."""
    dns: DomainName = "kube-dns.kube-system.svc.cluster.local"
    """The cluster's DNS, which nginx asks who is in a pool; CoreDNS has this name nearly everywhere."""
    resolve_interval_s: int = Field(2, ge=1, le=60)
    """How often a gateway asks who is in a pool."""
    dns_cache_s: int = Field(30, ge=0, le=300)
    """How long the cluster's DNS may go on naming a pod that is gone. 30 s is what CoreDNS keeps answers in older clusters; where it
    keeps none for the cluster's own names (kubeadm since 1.31), 5. A pod that is stopped serves on for so long first."""
    gpus: int = Field(2, ge=1, le=4096)
    """With `engines: auto`: GPUs of the whole Kubernetes cluster that are dealt out to the pools by `gpu_weight`."""
    gpu_memory_gb: float = Field(24, gt=0)
    """Memory of each of them, in GiB, for choosing flags."""
    gpu_resource: Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")] = "nvidia.com/gpu"
    """What a pod asks the scheduler for: with MIG such as nvidia.com/mig-1g.10gb."""
    runtime_class: Name | None = None
    """RuntimeClass of pods with a GPU, such as nvidia, where it is not the nodes' default."""
    engine_cores: float = Field(4, gt=0, le=256)
    """Cores that a pod with a GPU asks for: pictures are prepared on them."""
    gateways: int = Field(2, ge=1, le=100)
    """Copies of nginx. Each remembers conversations by itself, and limits of API keys count in each of them."""
    models_storage_gb: int = Field(100, ge=1)
    """Size of the volume for weights."""
    storage_class: Name | None = None
    """StorageClass of that volume. null: the cluster's default. The overlay many-nodes wants one that can do ReadWriteMany."""
    hostnames: tuple[DomainName, ...] = ()
    """Names under which the HTTPRoute takes requests. Empty: any."""
    route_parent: Name = "public"
    """The Gateway (of the Gateway API) that the HTTPRoute hangs on."""
    route_parent_namespace: Name = "gateway-system"
    """The namespace it is in."""
    monitoring_namespace: Name = "monitoring"
    """Where Prometheus and Grafana run: they alone may ask for metrics."""
    prometheus_release: str = Field("kube-prometheus-stack", pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")
    """Value of the label `release`, by which the Prometheus operator finds what it is to scrape."""
    prometheus_url: Annotated[str, StringConstraints(pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/.*)?$")] = (
        "http://kube-prometheus-stack-prometheus.monitoring.svc:9090"
    )
    """Where KEDA asks."""
    autoscaling: Autoscaling = Autoscaling()
    """What pods are added at."""


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
    """How engines with a `gpu_fraction` below 1 use one GPU: in turns, or at once through NVIDIA's MPS."""
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
            (section.__doc__ or "").strip().splitlines()[0],
            "",
            "| key | default | meaning |",
            "|---|---|---|",
        ]
        for key, field in section.model_fields.items():
            meaning = " ".join((field.description or "").split()).replace("|", "\\|")
            lines.append(f"| `{key}` | {_default(field)} | {meaning} |")
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
