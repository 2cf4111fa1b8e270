"""The schema of cluster.yaml. It is exported as JSON Schema for editors and as docs/reference/configuration.md."""

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
    """Thresholds at which KEDA or a plain HorizontalPodAutoscaler adds pods. Limits and speed come from
    `pools[].scaling`."""

    waiting: int = Field(4, ge=1)
    """Requests in the queue of one engine."""
    hidden_queue: int = Field(4, ge=1)
    """Requests in one engine that neither run nor wait, because their images are being prepared. KEDA only, not a plain
    HPA."""
    p95_s: float = Field(10, gt=0)
    """95th percentile of the pool's request latency, in seconds, if `pools[].scaling.target.p95_s` is not set. KEDA
    only."""
    max_engines: int | None = Field(None, ge=1)
    """Maximum number of engines of a pool, if its `scaling.max` is not set. null: twice the number of placed
    engines."""


class Kubernetes(Section):
    """Settings of the Kubernetes manifests, which serve the same pools."""

    namespace: Name = "manyeyes"
    """Namespace of all objects."""
    cluster_domain: DomainName = "cluster.local"
    """DNS suffix of the Kubernetes cluster."""
    dns: DomainName = "kube-dns.kube-system.svc.cluster.local"
    """The cluster's DNS server, which nginx queries for the members of a pool. CoreDNS has this name in nearly every
    cluster."""
    resolve_interval_s: int = Field(2, ge=1, le=60)
    """How often a gateway queries the members of a pool, in seconds."""
    dns_cache_s: int = Field(30, ge=0, le=300)
    """How long the cluster's DNS may still return a removed pod, in seconds. In older clusters CoreDNS caches answers
    for 30 s. Set 5 where it does not cache the cluster's names (kubeadm since 1.31). A pod continues to serve for this
    long before it stops."""
    gpus: int = Field(2, ge=1, le=4096)
    """With `engines: auto`: number of GPUs of the whole Kubernetes cluster, assigned to the pools by `gpu_weight`."""
    gpu_memory_gb: float = Field(24, gt=0)
    """Memory of each of these GPUs, in GiB, for choosing flags."""
    gpu_resource: Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")] = "nvidia.com/gpu"
    """Extended resource that a pod requests. With MIG, for example nvidia.com/mig-1g.10gb."""
    runtime_class: Name | None = None
    """RuntimeClass of pods with a GPU, such as nvidia, if it is not the default of the nodes."""
    engine_cores: float = Field(4, gt=0, le=256)
    """CPU cores that a pod with a GPU requests. Images are prepared on them."""
    gateways: int = Field(2, ge=1, le=100)
    """Number of nginx replicas. Each replica has its own session affinity and its own count for the limits of API
    keys."""
    models_storage_gb: int = Field(100, ge=1)
    """Size of the volume for model weights, in GiB."""
    storage_class: Name | None = None
    """StorageClass of that volume. null: the cluster's default. The overlay many-nodes requires a class with
    ReadWriteMany."""
    hostnames: tuple[DomainName, ...] = ()
    """Host names that the HTTPRoute accepts. Empty: any."""
    route_parent: Name = "public"
    """Parent of the HTTPRoute: the name of a Gateway of the Gateway API."""
    route_parent_namespace: Name = "gateway-system"
    """Namespace of that Gateway."""
    monitoring_namespace: Name = "monitoring"
    """Namespace of Prometheus and Grafana. Only pods of this namespace may read metrics."""
    prometheus_release: str = Field("kube-prometheus-stack", pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")
    """Value of the label `release`, by which the Prometheus operator selects its scrape targets."""
    prometheus_url: Annotated[str, StringConstraints(pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/.*)?$")] = (
        "http://kube-prometheus-stack-prometheus.monitoring.svc:9090"
    )
    """The Prometheus server that KEDA queries."""
    autoscaling: Autoscaling = Autoscaling()
    """Thresholds at which pods are added."""


class Cluster(Section):
    """All settings of the cluster. Secrets and host paths come from the environment instead."""

    name: Name = "manyeyes"
    """Name of the Compose project: the prefix of containers, network and volumes."""
    flavour: Literal["auto"] | Flavour = "auto"
    """With `engines: auto`: what engines run on. auto: cuda if the host has GPUs, else cpu. `make up FLAVOUR=`
    overrides it."""
    pools: tuple[Pool, ...] = Field(min_length=1)
    """One pool for each model name."""
    engines: Literal["auto"] | tuple[Engine, ...] = "auto"
    """auto: one engine per GPU of the host (without a GPU: `cpu_engines`), assigned to the pools by `gpu_weight`. Or a
    list of engines."""
    cpu_engines: int = Field(2, ge=1, le=16)
    """With `engines: auto` on a host without GPUs: number of engines. Each uses about 1.5 GiB of memory plus its
    model."""
    cpu_threads: int = Field(4, ge=1, le=256)
    """Threads of one engine on CPU. All engines together should use as many threads as the host has cores. The tiny
    model uses one thread."""
    emulated_engines: int = Field(3, ge=1, le=64)
    """With `engines: auto` and the emulated flavour: number of emulated GPUs."""
    auto: tuple[Route, ...] = ()
    """Routing rules for `model: auto`. Pools that are slower than a client's X-Latency-Budget-Ms are skipped. Empty:
    the pools in the order of this file."""
    gpu_sharing: GpuSharing = "time_slicing"
    """How engines with a `gpu_fraction` below 1 use one GPU: in turns (time_slicing), or at the same time through
    NVIDIA's MPS (mps)."""
    gateway: Gateway = Gateway()
    """Settings of nginx."""
    controller: Controller = Controller()
    """Settings of health probes, membership and autoscaling."""
    adapter: Adapter = Adapter()
    """Settings for endpoints that do not implement OpenAI's API."""
    webui: WebUi = WebUi()
    """Settings of the web page."""
    monitoring: Monitoring = Monitoring()
    """Settings of Prometheus and Grafana."""
    logs: Logs = Logs()
    """Settings of logs."""
    tracing: Tracing = Tracing()
    """Settings of request traces."""
    network: Network = Network()
    """Settings of the cluster's network."""
    models: Models = Models()
    """Settings of model weights and caches."""
    shutdown: Shutdown = Shutdown()
    """How engines shut down."""
    images: Images = Images()
    """Container images and their versions."""
    kubernetes: Kubernetes = Kubernetes()
    """Settings for Kubernetes (make k8s); `gpus` and `gpu_memory_gb` also apply to Swarm."""

    def pool(self, name: str) -> Pool:
        """Returns the pool with this name. Raises KeyError."""
        for pool in self.pools:
            if pool.name == name:
                return pool
        raise KeyError(name)

    @property
    def listed_engines(self) -> tuple[Engine, ...]:
        """The engines listed in the file; empty with `engines: auto`."""
        return () if self.engines == "auto" else self.engines


PLURALS = {"pools": "pools[]", "engines": "engines[]"}


def sections(place: str = "", section: type[Section] = Cluster) -> Iterator[tuple[str, type[Section]]]:
    """Yields ('', Cluster), ('pools[]', Pool), ('pools[].media', Media) and so on, in the order of the schema."""
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
    """Returns the JSON Schema, for `# yaml-language-server: $schema=` at the top of cluster.yaml."""
    return json.dumps(Cluster.model_json_schema(), indent=2) + "\n"


def markdown() -> str:
    """Returns the text of docs/reference/configuration.md."""
    lines = [
        "# Configuration",
        "",
        "<!-- Generated by `make docs` from the schema in manyeyes/config/. Do not edit. -->",
        "",
        "All settings are in `config/cluster.yaml`. A section or key that is left out has the default below.",
        "`make check-config` checks the file and prints all problems. Examples are in `config/examples/`.",
        "Secrets and host paths come from the environment (`.env.example`).",
        "",
    ]
    for place, section in sections():
        lines += [
            f"## {place or 'Top level'}",
            "",
            " ".join((section.__doc__ or "").strip().partition("\n\n")[0].split()),
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
