"""What the same cluster is on Kubernetes: read by `make k8s` only. docs/kubernetes.md."""

from typing import Annotated

from pydantic import Field, StringConstraints

from manyeyes.config.fields import Name, Section

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
    resolve_every_s: int = Field(2, ge=1, le=60)
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
