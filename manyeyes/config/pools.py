"""The settings of a pool: the engines that serve one model name."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from manyeyes.config.fields import MAX_DURATION_S, FileName, Host, IsUrl, ModelAlias, Name, Section
from manyeyes.config.scaling import Scaling

AUTO = "auto"
"""The model name with which a client lets the gateway choose the pool."""


class Route(Section):
    """One routing rule for `model: auto`. A rule matches if all its conditions hold; the first matching rule is
    used."""

    pool: Name
    """Pool of the requests that match."""
    min_images: int = Field(0, ge=0)
    """Minimum number of images in the request."""
    min_videos: int = Field(0, ge=0)
    """Minimum number of videos in the request."""
    min_text_bytes: int = Field(0, ge=0)
    """Minimum size of the text of all turns, in bytes."""
    reasoning_effort: tuple[str, ...] = ()
    """Accepted values of the request's reasoning_effort, such as [medium, high]. Empty: any."""


class Slo(Section):
    """Service level objectives of a pool. Alerts use them, and the load test uses them as defaults."""

    ttft_s: float = Field(2, gt=0, le=600)
    """Maximum time to first token (TTFT) of a streamed answer, in seconds."""
    latency_s: float = Field(5, gt=0, le=7200)
    """Maximum time for a whole answer, in seconds. Raise it if answers are long: 500 tokens at 50 tokens per second
    take 10 s."""
    latency_objective: float = Field(0.95, gt=0, lt=1)
    """Share of the answered requests that must meet both times."""
    availability: float = Field(0.99, gt=0, lt=1)
    """Share of the requests that must be answered. Client errors (4xx) are not counted."""


Flavour = Literal["cuda", "cpu", "emulated"]


class Media(Section):
    """Limits for images and videos in a request."""

    images_per_prompt: int = Field(16, ge=0, le=256)
    """Maximum number of images in one request, over all turns. 0: images are rejected."""
    videos_per_prompt: int = Field(1, ge=0, le=16)
    """Maximum number of videos in one request. vLLM reserves memory for the longest video, so 0 leaves more for the KV
    cache."""
    video_frames: int = Field(16, ge=2, le=768)
    """Number of frames sampled from a video, evenly spaced. Two frames share one temporal patch."""
    frame_max_pixels: int = Field(262_144, ge=1024)
    """Video frames are scaled so that all frames together have at most video_frames x this many pixels."""
    min_pixels: int = Field(65_536, ge=1024)
    """Smaller images are scaled up to about this many pixels (width x height)."""
    max_pixels: int = Field(1_310_720, ge=1024)
    """Larger images are scaled down to about this many pixels. 1024 pixels are one vision token."""
    max_decoded_pixels: int = Field(50_000_000, ge=1_000_000, le=178_956_970)
    """Images and video frames with more pixels are rejected with 400 before they are decoded. It must not be below
    max_pixels. A decoded pixel uses 3 to 8 bytes of host memory, and a file of 20 KB can contain 100 million pixels of
    one colour."""
    max_request_pixels: int = Field(200_000_000, ge=1_000_000, le=10_000_000_000)
    """A request is rejected with 400 if its images have more pixels together, before they are decoded. It must not be
    below max_decoded_pixels."""
    allowed_domains: tuple[Host, ...] = ()
    """Hosts from which engines may fetch images by URL. Empty: only `data:` URLs are accepted, and nothing is
    fetched."""
    allow_private: bool = False
    """true: these hosts may have private addresses (10/8, 172.16/12, 192.168/16 and similar), on ports 80 and 443.
    Loopback, link-local and metadata addresses are always rejected."""


class Sampling(Section):
    """Defaults of sampling parameters, and the maximum length of an answer."""

    temperature: float | None = Field(None, ge=0, le=2)
    """Default temperature. null: from the model's generation_config.json."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Default top-p. null: from the model."""
    top_k: int | None = Field(None, ge=-1)
    """Default top-k. null: from the model."""
    max_tokens: int | None = Field(None, ge=1)
    """Maximum number of tokens in an answer. It overrides a larger value in the request. null: only max_model_len
    limits it."""


class Remote(Section):
    """An external OpenAI-compatible endpoint: a hosted API, SGLang, TGI, or another ManyEyes."""

    url: Annotated[
        str,
        StringConstraints(max_length=2000, pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?$"),
        IsUrl,
    ]
    """Base URL of the API, including the version: https://api.example.com/compatible-mode/v1."""
    key_file: FileName | None = None
    """A file in the secrets folder that contains the API key. null: no key is sent."""
    ca_file: FileName | None = None
    """A file in the secrets folder with the trusted CA certificates. null: the system's CA certificates."""

    @property
    def is_tls(self) -> bool:
        return self.url.startswith("https://")

    @property
    def host(self) -> str:
        """Host name without the port."""
        return self._authority.partition(":")[0]

    @property
    def port(self) -> int:
        return int(self._authority.partition(":")[2] or (443 if self.is_tls else 80))

    @property
    def path(self) -> str:
        """Path with a leading slash and without a trailing slash; may be empty."""
        return self.url.split("://")[1].removeprefix(self._authority).rstrip("/")

    @property
    def _authority(self) -> str:
        return self.url.split("://")[1].partition("/")[0]


class Cache(Section):
    """Cache of answers to identical requests with `temperature: 0` that are not streamed."""

    ttl_s: int = Field(3600, ge=1, le=MAX_DURATION_S)
    """How long an answer is valid, in seconds."""
    max_mb: int = Field(64, ge=1, le=1_048_576)
    """Maximum memory of the cache, in MiB. The least recently used answers are evicted first."""
    shared: bool = False
    """true: all clients share the cache. false: each client address of each API key has a separate cache."""


Balancing = Literal["conversation", "image", "least_conn", "round_robin"]


EnvironmentVariable = Annotated[
    str,
    StringConstraints(
        pattern=r"^(CUDA|FLASHINFER|HF|NCCL|OMP|PYTORCH|TOKENIZERS|TORCH|TORCHINDUCTOR|TRITON|VLLM)_[A-Z0-9_]{1,100}"
        r"=[^\x00-\x1f\x7f$]{0,1000}$"
    ),
]
"""A variable of vLLM or of a library that it uses, as NAME=value."""


class Pool(Section):
    """A pool: the engines that serve one model name."""

    name: Name
    """Model name that clients send in `model`."""
    model: Annotated[str, StringConstraints(pattern=r"^(/[^\x00-\x1f\x7f$]*|[A-Za-z0-9@][A-Za-z0-9._/:@+-]{0,199})$")]
    """A Hugging Face id, an absolute path of a folder on this host, or `tiny` (random weights, for tests)."""
    revision: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,199}$")] | None = None
    """Branch, tag or commit of the model. null: the newest."""
    aliases: tuple[ModelAlias, ...] = ()
    """Additional model names for this pool."""
    flavours: tuple[Flavour, ...] = ("cuda", "emulated")
    """What `engines: auto` may run this pool on: GPUs (cuda), CPUs of a host without GPUs (cpu), or emulated engines
    (emulated)."""
    gpu_weight: int = Field(1, ge=0)
    """With `engines: auto`, GPUs are assigned to pools in proportion to this. 0: `engines: auto` assigns no GPU."""
    max_model_len: int = Field(8192, ge=256)
    """Maximum length of prompt plus answer, in tokens. With longer contexts, fewer requests fit into the KV cache."""
    quantization: (
        Literal[
            "fp8_per_tensor",
            "fp8_per_channel",
            "fp8_per_block",
            "int8_per_channel_weight_only",
            "awq",
            "awq_marlin",
            "gptq",
            "gptq_marlin",
            "compressed-tensors",
        ]
        | None
    ) = None
    """null: from the checkpoint, which is right for published FP8, AWQ and GPTQ models. fp8_per_tensor, fp8_per_channel,
    fp8_per_block and int8_per_channel_weight_only quantize a BF16 checkpoint when it is loaded."""
    kv_cache_dtype: Literal["auto", "fp8"] = "auto"
    """fp8 doubles the tokens in the KV cache. It costs 0.7-2 points on reasoning tests and was not measured on Ada
    GPUs."""
    max_num_seqs: int | None = Field(None, ge=1, le=65_536)
    """Maximum number of requests that an engine runs at the same time. null: depends on GPU memory."""
    fallback: Name | None = None
    """The pool that answers while this pool is empty or failing. The answer has this pool's model name; headers show
    the fallback."""
    if_gpu_too_small: Name | None = None
    """With `engines: auto`: the pool that is started instead on a GPU whose memory is too small for this model."""
    if_weights_unavailable: Name | None = None
    """With `engines: auto`: the pool that is started instead if this model's weights are not available."""
    media: Media = Media()
    """Limits for images and videos."""
    balancing: Balancing = "conversation"
    """How an engine is chosen. conversation: the least busy engine, then session affinity, because that engine has the
    chat in its KV cache. image: requests with the same first image go to the same engine, for many questions about few
    documents. least_conn: the least busy engine. round_robin: each engine in turn."""
    max_in_flight: int | None = Field(None, ge=1, le=1_000_000)
    """Maximum concurrent requests that the gateway sends to one engine. A full engine is skipped. null: the number that
    the engine runs and queues."""
    cache: Cache | None = None
    """Response cache. null: every request reaches an engine."""
    remote: Remote | None = None
    """External endpoint that serves this pool instead of engines. `model` is then the model name at that endpoint."""
    scaling: Scaling | None = None
    """Autoscaling. null: all engines always run. {}: the number of engines follows the load (docs/autoscaling.md)."""
    slo: Slo = Slo()
    """Service level objectives, for alerts and goodput."""
    sampling: Sampling = Sampling()
    """Sampling defaults and the maximum length of an answer."""
    vllm_flags: tuple[str, ...] = ()
    """Additional vLLM flags for every engine of this pool, one string each: `--flag=value`."""
    environment: tuple[EnvironmentVariable, ...] = ()
    """Additional environment variables for every engine of this pool, one string each: `NCCL_P2P_DISABLE=1`. They
    override those that ManyEyes sets, except those of logs and of the media proxy."""

    @property
    def is_tiny(self) -> bool:
        return self.model == "tiny"

    @property
    def is_local(self) -> bool:
        """The model is a folder on this host."""
        return self.model.startswith("/")

    @property
    def names(self) -> tuple[str, ...]:
        """All model names of this pool; the pool's name is first."""
        own_id = () if self.is_tiny or self.is_local else (self.model,)
        return tuple(dict.fromkeys((self.name, *own_id, *self.aliases)))
