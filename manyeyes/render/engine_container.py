"""Image, environment, memory and models of an engine's container, for Compose, Kubernetes and Swarm.

Also the service of the egress proxy (manyeyes/egress_proxy), the only route out for engines that may fetch media by
URL.
"""

import json
from typing import Any

from manyeyes.config.engines import Engine
from manyeyes.config.placement import PlacedCluster
from manyeyes.config.pools import Pool
from manyeyes.engine.vllm_flags import MODELS_DIR, TINY_DIR, compiles_with_guidance, uses_sleep_mode
from manyeyes.render.compose_env import logging_options

USER = "10001:10001"
"""User and group that an engine runs as. The downloader makes it the owner of the engine's cache."""
CACHE_DIR = "/cache"
MPS_DIR = "/mps"
MAX_ANSWERS = 8
"""Maximum `n` of a request. vLLM's default of 16,384 is more than any engine runs and queues: such a request would
always get 503."""
MAX_COMPLETION_PROMPTS = 16
"""Maximum number of prompts in a plain completion, and of n x prompts. Each counts as one request that the engine runs
or queues."""
CODE_DIR = "/app"
"""The folder above manyeyes/ in the containers of engines and of the downloader."""
POD_DIR = f"{CODE_DIR}/manyeyes/engine/pod"
FRAME_PART = 5
"""A video frame may have 1/FRAME_PART of the pixels of an image, because all frames of a video are decoded together.
10 million by default."""


def image_of(cluster: PlacedCluster, engine: Engine) -> str:
    return {
        "cuda": cluster.images.vllm_cuda,
        "cpu": cluster.images.vllm_cpu,
        "emulated": cluster.images.emulator,
    }[engine.flavour]


def environment_of(cluster: PlacedCluster, pool: Pool, engine: Engine) -> dict[str, str]:
    # Enables /sleep, /wake_up and other vLLM endpoints without a key. Only the cluster's network reaches them; the
    # gateway does not.
    sleep_mode = {"VLLM_SERVER_DEV_MODE": "1"} if uses_sleep_mode(pool) else {}
    environment = sleep_mode | {
        # Docker's client may set a proxy in all containers; health checks and vLLM's own connections must not use it.
        "no_proxy": "localhost,127.0.0.1",
        # Longer than nginx's 60 s, so that nginx closes idle connections and not the engine: a reused connection is
        # never reset.
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "75",
        "VLLM_MAX_IMAGE_PIXELS": str(pool.media.max_decoded_pixels),
        "VLLM_MAX_N_SEQUENCES": str(MAX_ANSWERS),
        "VLLM_MAX_COMPLETION_PROMPTS": str(MAX_COMPLETION_PROMPTS),
    }
    if engine.flavour == "emulated":
        return environment
    environment |= {
        # The user has no name in the image, and Python's getpass requires a name.
        "USER": "engine",
        "TRITON_CACHE_DIR": f"{CACHE_DIR}/triton",
        "TORCHINDUCTOR_CACHE_DIR": f"{CACHE_DIR}/inductor",
        "HF_HOME": MODELS_DIR,
        # The downloader has fetched every model; an engine that contacts the hub again would race with the other
        # engines.
        "HF_HUB_OFFLINE": "1",
        "HOME": CACHE_DIR,
        "VLLM_CACHE_ROOT": f"{CACHE_DIR}/vllm",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
        "VLLM_MEDIA_FETCH_MAX_RETRIES": "1",
    }
    if compiles_with_guidance(pool, engine):
        # With 1, vLLM describes forced tool calls by structural tags, which only xgrammar compiles.
        environment["VLLM_ENFORCE_STRICT_TOOL_CALLING"] = "0"
    environment |= media_environment(pool, engine)
    if engine.flavour == "cpu":
        threads = 1 if pool.is_tiny else cluster.cpu_threads
        environment |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(threads)}
        # With --enforce-eager this avoids C++ compilation on the first request with logprobs.
        environment |= {"TORCHDYNAMO_DISABLE": "1"}
    if uses_mps(cluster) and engine.gpu_fraction < 1:
        environment |= {
            "CUDA_MPS_PIPE_DIRECTORY": f"{MPS_DIR}/pipe",
            "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": str(round(engine.gpu_fraction * 100)),
        }
    own = dict(variable.split("=", 1) for variable in (*pool.environment, *engine.environment))
    return environment | own


def media_environment(pool: Pool, engine: Engine) -> dict[str, str]:
    """Settings of manyeyes/engine/pod/media_memory.py and the number of decoding threads.

    Together they stay within memory_gb.
    """
    memory = memory_gb(engine, pool)
    return {
        "VLLM_MEDIA_CONNECTOR": "bounded",
        # One decoded pixel takes up to 8 bytes during conversion: 400 MB for an image of 50 million pixels.
        "VLLM_MEDIA_LOADING_THREAD_COUNT": str(max(1, min(8, int(memory / 4)))),
        "MANYEYES_MEDIA_MEMORY_MB": str(round(memory * 1024 / 8)),
        "MANYEYES_MEDIA_PIXELS": str(pool.media.max_pixels),
        "MANYEYES_FRAME_PIXELS": str(pool.media.max_decoded_pixels // FRAME_PART),
    }


def logging_flags(cluster: PlacedCluster, engine: Engine) -> list[str]:
    """Flags for request logs and traces.

    With manyeyes/observability/vllm.json a log line has the request's id and no content.
    """
    requests = ["--enable-log-requests"] if cluster.logs.engine_requests else []
    is_traced = cluster.tracing.enabled and engine.flavour != "emulated"
    return [*requests, *([f"--otlp-traces-endpoint={cluster.tracing.collector}/v1/traces"] if is_traced else [])]


def logging_environment(cluster: PlacedCluster, engine: Engine) -> dict[str, str]:
    """Environment for log lines and spans."""
    names = {"MANYEYES_ENGINE": engine.name, "MANYEYES_POOL": engine.pool}
    if engine.flavour == "emulated":
        return names
    logs = {
        "PYTHONPATH": f"{CODE_DIR}:{POD_DIR}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "VLLM_LOGGING_CONFIG_PATH": f"{CODE_DIR}/manyeyes/observability/vllm.json",
    }
    if not cluster.tracing.enabled:
        return names | logs
    return (
        names
        | logs
        | {
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            "OTEL_SERVICE_NAME": "engine",
            "OTEL_RESOURCE_ATTRIBUTES": f"manyeyes.engine={engine.name},manyeyes.pool={engine.pool}",
        }
    )


def shm_gb(engine: Engine) -> float:
    """Size of /dev/shm.

    Docker's default of 64 MB makes vLLM hang or crash; tensor-parallel ranks communicate through it.
    """
    if engine.shm_gb:
        return engine.shm_gb
    if engine.flavour == "cpu":
        return 1
    return 4 + 4 * engine.parallel


def memory_gb(engine: Engine, pool: Pool) -> float:
    """Host memory limit."""
    by_flavour = {"cuda": 24.0 + 8 * engine.parallel, "cpu": 4.0 if pool.is_tiny else 14.0, "emulated": 0.25}
    return engine.memory_gb or by_flavour[engine.flavour]


def download_environment(models: list[dict[str, object]]) -> dict[str, str]:
    """Environment of manyeyes/engine/model_download.py on Kubernetes and Swarm, and of engines that wait for it.

    `models`: result of models_to_download().
    """
    return {
        "MODELS": json.dumps(models),
        "HF_HOME": MODELS_DIR,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def models_to_download(cluster: PlacedCluster) -> list[dict[str, Any]]:
    """The models that manyeyes/engine/model_download.py downloads, for $MODELS."""
    pools = [
        cluster.pool(name) for name in dict.fromkeys(e.pool for e in cluster.started_engines if e.flavour != "emulated")
    ]
    return [
        {"model": pool.model, "revision": pool.revision, **({"folder": TINY_DIR} if pool.is_tiny else {})}
        for pool in pools
        if not pool.is_local
    ]


def runs_vllm(cluster: PlacedCluster) -> bool:
    return any(engine.flavour != "emulated" for engine in cluster.started_engines)


def uses_mps(cluster: PlacedCluster) -> bool:
    return cluster.gpu_sharing == "mps" and any(engine.gpu_fraction < 1 for engine in cluster.started_engines)


MEDIA_PORT = 3128


def fetches_media(cluster: PlacedCluster) -> bool:
    return bool(media_domains(cluster))


def media_domains(cluster: PlacedCluster) -> dict[str, bool]:
    """{host that engines may fetch from: whether it may have a private address}."""
    allowed: dict[str, bool] = {}
    for pool in (cluster.pool_of(engine) for engine in cluster.started_engines if engine.flavour != "emulated"):
        for domain in pool.media.allowed_domains:
            name = domain.lower()
            allowed[name] = allowed.get(name, False) or pool.media.allow_private
    return allowed


def may_fetch_media(pool: Pool, engine: Engine) -> bool:
    return bool(pool.media.allowed_domains) and engine.flavour != "emulated"


def proxy_environment(pool: Pool, engine: Engine) -> dict[str, str]:
    """Proxy settings of vLLM's HTTP client. The engine has no other route out."""
    if not may_fetch_media(pool, engine):
        return {}
    proxy = f"http://media:{MEDIA_PORT}"
    return {"http_proxy": proxy, "https_proxy": proxy, "no_proxy": "localhost,127.0.0.1"}


def media_service(cluster: PlacedCluster, allowed: dict[str, bool]) -> dict[str, Any]:
    """Egress proxy for engines that may fetch images by URL.

    It checks the address of a host name before it connects.
    """
    return {
        "image": "${CONTROLLER_IMAGE}",
        "entrypoint": ["python", "-m", "manyeyes.egress_proxy"],
        "environment": {"MEDIA_DOMAINS": json.dumps(allowed), "MEDIA_PORT": str(MEDIA_PORT)},
        "networks": ["media", "media-outside"],
        "user": USER,
        "read_only": True,
        "tmpfs": ["/tmp:size=4m,mode=1777"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "init": True,
        "restart": "always",
        "stop_grace_period": "5s",
        "healthcheck": {
            "test": ["CMD", "python", "-m", "manyeyes.egress_proxy.healthcheck"],
            "interval": "60s",
            "timeout": "5s",
            "retries": 3,
            "start_period": "20s",
            "start_interval": "500ms",
        },
        "logging": logging_options(cluster),
        "deploy": {"resources": {"limits": {"memory": "256M", "pids": 64}}},
    }
