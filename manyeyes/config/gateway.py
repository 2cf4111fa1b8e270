"""Settings of the parts in front of and beside the engines."""

from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from manyeyes.config.credentials import ApiKeys
from manyeyes.config.fields import LONGEST_S, FileName, ImageReference, IsDomain, IsUrl, IsWritten, Port, Section


class Tls(Section):
    """Files in the secrets folder. Where they do not exist, `make up` makes a self-signed pair."""

    certificate: FileName = "tls.crt"
    """The certificate, with those it depends on after it, in PEM."""
    key: FileName = "tls.key"
    """Its private key, in PEM."""


class Gateway(Section):
    """Nginx: the one address of the cluster."""

    host: Annotated[IPv4Address, IsWritten] = IPv4Address("0.0.0.0")
    """Address of this host to listen on. 127.0.0.1 keeps the cluster to this machine."""
    port: Port = 8080
    """Port of the page and of the API."""
    workers: int | None = Field(None, ge=1, le=64)
    """Processes of nginx, each of which takes a core at most. null: two, and one more for every four engines from the ninth on that are started
    here (those at an `address` come and go without a reload, and count for none). With two, a request that is dear to read holds up only half
    of the others. More are needed where tens of engines stream, or where TLS and large pictures fill a core. Each takes 8192 connections, and a
    stream takes two of them."""
    max_body_mb: int = Field(64, ge=1, le=1024)
    """Largest request, in MiB; pictures travel in it as base64, a third larger than the file."""
    connect_timeout_s: float = Field(1, gt=0, le=60)
    """Longest wait for an engine to accept a connection."""
    read_timeout_s: int = Field(600, ge=5, le=LONGEST_S)
    """Longest silence of an engine; must exceed the longest answer that is not streamed."""
    tries: int = Field(2, ge=1, le=5)
    """Engines that may be asked for one request, before its first byte."""
    total_timeout_s: int = Field(900, ge=5, le=LONGEST_S)
    """After this long a request is not given to another engine any more."""
    retry_after_s: int = Field(5, ge=1, le=LONGEST_S)
    """What Retry-After says while no engine can answer."""
    conversation_timeout_s: int = Field(3600, ge=1, le=LONGEST_S)
    """How long after a turn the next one still goes to the same engine."""
    tls: Tls | None = None
    """null: plain HTTP. {}: HTTPS (and HTTP/2) on `port`, with a self-signed certificate until you put your own in secrets/."""
    keys_file: FileName = "api-keys.yaml"
    """API keys, hashed, beside this file; `manyeyes key NAME` adds one. While it does not exist nobody needs a key."""
    anonymous: bool | None = None
    """Whether requests without a key are served. null: only while there are no keys."""

    def wants_key(self, keys: ApiKeys) -> bool:
        """Whether a request without a known key is refused."""
        return bool(keys.keys) if self.anonymous is None else not self.anonymous


class Controller(Section):
    """The service that knows which engines are up."""

    probe_interval_s: float = Field(2, gt=0, le=60)
    """Pause between two probes of an engine that is up."""
    probe_timeout_s: float = Field(60, gt=0, le=600)
    """Deadline of one probe. Long, because a saturated vLLM answers /health after tens of seconds; meanwhile its progress counts."""
    connect_timeout_s: float = Field(2, gt=0, le=60)
    """Longest wait for an engine to accept a probe's connection."""
    load_interval_s: float = Field(10, gt=0, le=300)
    """Pause between two looks at an engine's /load and /metrics. Where there is doubt they are read at every probe."""
    rise: int = Field(1, ge=1, le=20)
    """Good probes in a row that bring an engine back."""
    fall: int = Field(2, ge=1, le=20)
    """Probes without an answer in a row, or failed requests in a row, that make an engine suspect. It stays in rotation."""
    hung_after_s: float = Field(7, gt=0, le=600)
    """An engine without an answer to /health, without progress and without a success for so long is taken out. One on CPU
    gets three times as long, and one that lately answered late twice as long as that took."""
    stalled_after_s: float = Field(20, gt=0, le=3600)
    """An engine that answers /health while the work in it stands still for so long has to answer about a picture. On CPU
    three times as long."""
    canary_interval_s: float = Field(300, ge=0, le=86_400)
    """An idle engine is asked about one picture, for one token, so often. 0: never."""
    canary_timeout_s: float = Field(10, gt=0, le=600)
    """Longest wait for that answer."""
    flap_downs: int = Field(3, ge=1, le=100)
    """An engine that went down so often within flap_window_s has to stay good for longer before it is admitted."""
    flap_window_s: float = Field(600, gt=0, le=86_400)
    """See flap_downs."""
    flap_penalty_s: float = Field(10, ge=0, le=300)
    """How much longer, doubled each further time, at most 300. Not while no other engine of its pool serves."""
    remote_interval_s: float = Field(30, gt=0, le=3600)
    """Pause between two looks at a pool that is served elsewhere: one connection is opened and closed, nothing is asked."""
    warm_up: bool = True
    """One picture is sent to a new engine before users get it: the first one is several times slower."""
    warm_up_timeout_s: float = Field(120, gt=0)
    """Deadline of that first picture."""
    dns_ttl_s: int = Field(1, ge=0, le=60)
    """Time to live of DNS answers; nginx asks again after it."""
    containers: bool = True
    """Whether the controller may start, stop and restart engines' containers, through a filter in front of Docker's socket that
    lets nothing else pass. Without it `make scale` and `scaling` can only put engines to sleep."""
    container_interval_s: float = Field(15, ge=1, le=3600)
    """Pause between two looks at what containers take of CPU and memory."""
    restart_hung_after_s: float | None = Field(120, ge=5)
    """An engine that runs but has not answered for so long is restarted, which ends what it has in flight. null: never.
    It is out of rotation long before that."""
    scaling_interval_s: float = Field(5, gt=0, le=300)
    """Pause between two scaling decisions."""
    record_load: bool = False
    """true: what each decision saw is written to the state volume, a file a day, for `manyeyes replay`. About 2 MB a day and
    pool, kept for 14 days."""
    gpu_metrics_url: (
        Annotated[
            str, StringConstraints(pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?$"), IsUrl
        ]
        | None
    ) = None
    """Where NVIDIA's DCGM exporter tells DCGM_FI_DEV_GPU_UTIL, such as http://dcgm-exporter:9400/metrics. For `target.gpu` only."""
    config_poll_interval_s: float = Field(1, ge=0.1, le=60)
    """Pause between two looks at this file and the API keys; a change is taken over once two looks saw the same."""
    reload_timeout_s: float = Field(20, gt=0, le=600)
    """Time for the gateway to take over new files, before it is told that it did not."""
    expose_api: bool = True
    """Whether the gateway passes /api/ on to it, where every call wants the admin key. false: only inside the cluster's network."""
    register_private: bool = True
    """Whether engines at private addresses (10/8, 172.16/12, 192.168/16 and the like) may be registered by API. Loopback and
    link-local addresses, where clouds keep their metadata, may not in any case."""
    register_loopback: bool = False
    """true: also engines on 127.0.0.1 may be registered, for trials without containers. In a container that address is the
    controller itself."""


class Network(Section):
    """The cluster's own network. nginx wants its resolver by address, so the controller's is fixed."""

    subnet: Annotated[IPv4Network, IsWritten] = IPv4Network("10.213.77.0/24")
    """Must not overlap a network this host is in."""
    controller_ip: Annotated[IPv4Address, IsWritten] = IPv4Address("10.213.77.2")
    """The controller's address inside the lower half of the subnet; Docker hands out the upper half."""
    domain: Annotated[str, IsDomain] = Field("manyeyes.internal", pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")
    """Suffix of the names the controller answers: <pool>.pool.<domain>."""

    @property
    def handed_out(self) -> IPv4Network:
        """The half of the subnet from which Docker gives containers their addresses."""
        return list(self.subnet.subnets(prefixlen_diff=1))[1]


class Models(Section):
    """Weights: downloaded once, before any engine starts."""

    offline: bool = False
    """true: never ask the hub; the weights must be in the models volume or be a path."""
    volume: str = Field("models", pattern=r"^(/.*|[a-zA-Z0-9][a-zA-Z0-9_.-]*)$")
    """Where weights are kept: a Docker volume, or an absolute path of this host to share a Hugging Face cache."""
    cache_volume: str = Field("compile-cache", pattern=r"^(/.*|[a-zA-Z0-9][a-zA-Z0-9_.-]*)$")
    """Where compiled kernels are kept (torch.compile), a Docker volume or an absolute path; it is code, so treat it as such."""


class Shutdown(Section):
    """How engines go."""

    drain_s: int = Field(15, ge=0, le=3600)
    """vLLM's --shutdown-timeout: what runs may finish within this after SIGTERM."""
    grace_s: int = Field(25, ge=1, le=7200)
    """Docker kills the container after this; must exceed drain_s."""
    finish_s: int = Field(300, ge=0, le=7200)
    """How long a rolling restart waits for an engine that gets nothing new to finish what it has, before drain_s begins."""


class Images(Section):
    """Every container image, in one place. `make images` builds these very tags where none can be pulled."""

    vllm_cuda: ImageReference = "vllm/vllm-openai:v0.32.0"
    """vLLM for GPUs; the same version as vllm_cpu."""
    vllm_cpu: ImageReference = "vllm/vllm-openai-cpu:v0.32.0"
    """vLLM for CPUs."""
    nginx: ImageReference = "nginx:1.30"
    """The gateway; its njs module comes with it."""
    prometheus: ImageReference = "prom/prometheus:v3.5.3"
    """Prometheus, long-term support line."""
    alertmanager: ImageReference = "prom/alertmanager:v0.33.1"
    """Alertmanager: who is told of alerts."""
    node_exporter: ImageReference = "prom/node-exporter:v1.11.1"
    """Tells of the host: CPU, memory, disks."""
    dcgm_exporter: ImageReference = "nvcr.io/nvidia/k8s/dcgm-exporter:4.5.3-4.8.2-distroless"
    """NVIDIA's exporter, for GPUs; 4.9 has other names for nearly everything. It can only be pulled; without it the cluster starts
    without figures of GPUs."""
    grafana: ImageReference = "grafana/grafana:12.3.0"
    """Grafana. It can only be pulled; without it the cluster starts without dashboards."""
    loki: ImageReference = "grafana/loki:3.6.0"
    """Only with `logs.loki.enabled`. It can only be pulled."""
    alloy: ImageReference = "grafana/alloy:v1.11.3"
    """The same."""
    jaeger: ImageReference = "jaegertracing/jaeger:2.12.0"
    """Only with `tracing.enabled`. It can only be pulled."""
    nginx_exporter: ImageReference = "nginx/nginx-prometheus-exporter:1.5.1"
    """Turns nginx's counters into metrics."""
    python: ImageReference = "python:3.11-slim"
    """What the images of ManyEyes' own parts are built on."""
    controller: ImageReference = "manyeyes/controller:0.1.0"
    """Built from this repository."""
    webui: ImageReference = "manyeyes/webui:0.1.0"
    """Built from this repository."""
    adapter: ImageReference = "manyeyes/adapter:0.1.0"
    """Built from this repository."""
    emulator: ImageReference = "manyeyes/emulator:0.1.0"
    """Built from this repository."""
    loadtest: ImageReference = "manyeyes/loadtest:0.1.0"
    """Built from this repository, when its page is asked for (manyeyes locust)."""


GpuSharing = Literal["time_slicing", "mps"]


class Concurrency(Section):
    """How many visitors' events of one kind run at the same time in each copy of the page; the others wait in Gradio's queue.
    Kinds do not wait for one another. A running answer is one idle coroutine."""

    chat: int = Field(64, ge=1, le=1000)
    """Answers in the Chat tab."""
    documents: int = Field(16, ge=1, le=1000)
    """Batches in the Documents tab; each reads up to 32 pages at a time."""
    compare: int = Field(32, ge=1, le=1000)
    """Comparisons."""
    fallback: int = Field(32, ge=1, le=1000)
    """Runs in the Fallback tab."""
    individual: int = Field(32, ge=1, le=1000)
    """Runs in the Individual tab."""
    agent: int = Field(32, ge=1, le=1000)
    """Steps in the Agent tab."""
    api_clients: int = Field(64, ge=1, le=1000)
    """Calls by gradio_client, of each named endpoint."""


class WebUi(Section):
    """The page."""

    title: str = Field("ManyEyes", min_length=1, max_length=60)
    """Shown on top of the page and in the browser's tab."""
    greeting: str = Field(
        "Ask about pictures and videos. Drop them here, paste them, or try one of these.", max_length=400
    )
    """The line under the title."""
    users_file: FileName = "users.yaml"
    """Who may open the page, with hashed passwords, beside this file; `manyeyes user NAME` adds one. While it does not exist nobody
    logs in."""
    session_lifetime_h: float = Field(12, gt=0, le=24 * 90)
    """Hours until who logged in has to do it again."""
    replicas: int = Field(1, ge=1, le=16)
    """Processes that serve the page, each with a core at most. A visit stays with its copy, by a cookie."""
    concurrency: Concurrency = Concurrency()
    """Sizes of the page's queues."""
    threads: int = Field(32, ge=1, le=256)
    """Threads of each copy for reading pictures, videos and PDFs."""
    upload_retention_h: float = Field(6, gt=0, le=24 * 7)
    """Hours after which an uploaded file is deleted in any case. Before that it goes with the chat or the visit that it belongs to."""
