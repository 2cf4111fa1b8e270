"""A pool: the engines that serve one model name, and how they serve it."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from manyeyes.config.fields import LONGEST_S, FileName, Host, IsUrl, ModelAlias, Name, Section
from manyeyes.config.scaling import Scaling

AUTO = "auto"
"""The name clients write to have the pool chosen."""


class Route(Section):
    """One rule. It fits when everything it names holds; the first that fits wins."""

    pool: Name
    """Where requests go that fit."""
    min_images: int = Field(0, ge=0)
    """Fits requests with at least so many pictures."""
    min_videos: int = Field(0, ge=0)
    """Fits requests with at least so many videos."""
    min_text_bytes: int = Field(0, ge=0)
    """Fits requests with at least so much text, all turns together."""
    reasoning_effort: tuple[str, ...] = ()
    """Fits requests that ask for one of these, such as [medium, high]."""


class Slo(Section):
    """What people may expect of a pool: alerts go by it, and the load test counts by the same figures unless told otherwise."""

    ttft_s: float = Field(2, gt=0, le=600)
    """Longest wait for the first byte of a streamed answer, in seconds."""
    latency_s: float = Field(5, gt=0, le=7200)
    """Longest wait for a whole answer, in seconds. Raise it where answers are long: 500 tokens at 50 a second take 10 s."""
    latency_objective: float = Field(0.95, gt=0, lt=1)
    """Of the requests that are answered, this part has to keep both."""
    availability: float = Field(0.99, gt=0, lt=1)
    """This part of requests has to be answered; one that the client got wrong (4xx) counts neither way."""


Flavour = Literal["cuda", "cpu", "emulated"]


class Media(Section):
    """What one request may bring besides text."""

    images_per_prompt: int = Field(16, ge=0, le=256)
    """Pictures in one request, all turns together. 0 refuses pictures."""
    videos_per_prompt: int = Field(1, ge=0, le=16)
    """Videos in one request. vLLM reserves memory for the longest video, so 0 leaves more for the KV cache."""
    video_frames: int = Field(16, ge=2, le=768)
    """Frames taken from a video, evenly spread. Two frames share one temporal patch."""
    frame_max_pixels: int = Field(262_144, ge=1024)
    """Video frames are scaled so that all of them together take at most video_frames x this many pixels."""
    min_pixels: int = Field(65_536, ge=1024)
    """Smaller pictures are scaled up to about this many pixels (width x height)."""
    max_pixels: int = Field(1_310_720, ge=1024)
    """Larger pictures are scaled down to about this many pixels; 1024 pixels cost one vision token."""
    max_decoded_pixels: int = Field(50_000_000, ge=1_000_000, le=178_956_970)
    """Pictures and video frames of more pixels than this are refused with 400 before they are decoded. It must not be below
    max_pixels. A decoded pixel takes 3 to 8 bytes of host memory, and a file of 20 KB may hold 100 million of one colour."""
    allowed_domains: tuple[Host, ...] = ()
    """Hosts from which engines may fetch pictures by URL. Empty: only `data:` URLs work (nothing is fetched)."""
    allow_private: bool = False
    """true: these hosts may be at private addresses (10/8, 172.16/12, 192.168/16 and the like), on ports 80 and 443. Loopback,
    link-local and metadata addresses are refused in any case."""


class Sampling(Section):
    """Defaults for requests that do not say, and the one hard limit."""

    temperature: float | None = Field(None, ge=0, le=2)
    """Default temperature. null: the model's own generation_config.json."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Default nucleus sampling mass. null: the model's own."""
    top_k: int | None = Field(None, ge=-1)
    """Default top-k. null: the model's own."""
    max_tokens: int | None = Field(None, ge=1)
    """Most tokens one answer may have, whatever the request asks for. null: only max_model_len limits it."""


class Remote(Section):
    """An OpenAI-compatible endpoint that runs elsewhere: a hosted API, SGLang, TGI, another ManyEyes."""

    url: Annotated[
        str,
        StringConstraints(max_length=2000, pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?$"),
        IsUrl,
    ]
    """Where its API begins, version included: https://api.example.com/compatible-mode/v1."""
    key_file: FileName | None = None
    """A file in the secrets folder that holds its API key. null: it wants none."""
    ca_file: FileName | None = None
    """A file in the secrets folder with the certificates to trust. null: those the system trusts."""

    @property
    def is_tls(self) -> bool:
        return self.url.startswith("https://")

    @property
    def host(self) -> str:
        """Without the port."""
        return self._authority.partition(":")[0]

    @property
    def port(self) -> int:
        return int(self._authority.partition(":")[2] or (443 if self.is_tls else 80))

    @property
    def path(self) -> str:
        """With a slash at its beginning and none at its end; may be empty."""
        return self.url.split("://")[1].removeprefix(self._authority).rstrip("/")

    @property
    def _authority(self) -> str:
        return self.url.split("://")[1].partition("/")[0]


class Cache(Section):
    """Answers kept for exact repeats of requests with `temperature: 0` that are not streamed."""

    ttl_s: int = Field(3600, ge=1, le=LONGEST_S)
    """How long an answer is used."""
    max_mb: int = Field(64, ge=1, le=1_048_576)
    """Memory that answers may take; those not used for longest go first."""
    shared: bool = False
    """true: whoever asks gets the same answer. false: every API key has its own, and every address within it."""


Balancing = Literal["conversation", "image", "least_conn", "round_robin"]


class Pool(Section):
    """The engines that serve one model name; clients say it in `model`."""

    name: Name
    """The name clients write in `model`."""
    model: Annotated[str, StringConstraints(pattern=r"^(/[^\x00-\x1f\x7f]*|[A-Za-z0-9@][A-Za-z0-9._/:@+-]{0,199})$")]
    """A Hugging Face id, an absolute path of a folder on this host, or `tiny` (random weights, for trying things out)."""
    revision: str | None = None
    """Branch, tag or commit of the model; null is the newest."""
    aliases: tuple[ModelAlias, ...] = ()
    """Further names clients may use for this pool."""
    flavours: tuple[Flavour, ...] = ("cuda", "emulated")
    """Where `engines: auto` may start this pool: on GPUs (cuda), on a host without (cpu), or emulated."""
    gpu_weight: int = Field(1, ge=0)
    """With `engines: auto`, GPUs are dealt out to pools in proportion to this. 0: never by itself."""
    max_model_len: int = Field(8192, ge=256)
    """Longest prompt plus answer, in tokens. Longer contexts leave fewer requests room in the KV cache."""
    quantization: (
        Literal["fp8", "awq", "awq_marlin", "gptq", "gptq_marlin", "bitsandbytes", "compressed-tensors"] | None
    ) = None
    """null: as the checkpoint says, which is right for published FP8, AWQ and GPTQ models."""
    kv_cache_dtype: Literal["auto", "fp8"] = "auto"
    """fp8 doubles the tokens that fit; it costs 0.7-2 points on reasoning tests and is not measured on Ada GPUs."""
    max_num_seqs: int | None = Field(None, ge=1, le=65_536)
    """Requests that one engine runs at the same time. null: chosen by GPU memory."""
    fallback: Name | None = None
    """The pool that answers while this one is empty or failing. Its model answers under this pool's name; headers say so."""
    if_weights_unavailable: Name | None = None
    """With `engines: auto`: the pool started instead when this model's weights cannot be had."""
    media: Media = Media()
    """Limits for pictures and videos."""
    balancing: Balancing = "conversation"
    """Which engine a request goes to. conversation: the least busy one, and later turns of a chat where its caches are. image:
    the same first picture always to the same engine, for many questions about few documents. least_conn: the least busy one.
    round_robin: in turn."""
    max_in_flight: int | None = Field(None, ge=1, le=1_000_000)
    """Requests that the gateway gives one engine at a time; a full one is passed over. null: as many as it runs and queues."""
    cache: Cache | None = None
    """null: every request reaches an engine."""
    remote: Remote | None = None
    """Where this pool is served instead of by engines; `model` is then its name there."""
    scaling: Scaling | None = None
    """null: all its engines always run. {}: as many as its load needs (docs/scaling.md)."""
    slo: Slo = Slo()
    """What people may expect, for alerts and for goodput."""
    sampling: Sampling = Sampling()
    """Sampling defaults and the answer's length limit."""
    vllm_flags: tuple[str, ...] = ()
    """Further flags for every engine of this pool, one string each: `--flag=value`."""

    @property
    def is_tiny(self) -> bool:
        return self.model == "tiny"

    @property
    def is_local(self) -> bool:
        """The model is a folder on this host."""
        return self.model.startswith("/")

    @property
    def names(self) -> tuple[str, ...]:
        """Every name a client may use for this pool; its own first."""
        own_id = () if self.is_tiny or self.is_local else (self.model,)
        return tuple(dict.fromkeys((self.name, *own_id, *self.aliases)))
