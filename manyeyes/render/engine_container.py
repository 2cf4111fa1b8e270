"""What an engine's container needs, whatever starts it (Compose, Kubernetes, Swarm): image, environment, memory, models.

And the egress proxy (manyeyes/egress_proxy), the one way out for engines that may fetch media by URL.
"""

import json
from typing import Any

from manyeyes.config.engines import Engine
from manyeyes.config.placement import PlacedCluster
from manyeyes.config.pools import Pool
from manyeyes.engine.vllm_flags import MODELS_DIR, TINY_DIR, sleeps
from manyeyes.render.compose_env import logging_options

USER = "10001:10001"
"""Whom an engine runs as. The downloader hands the cache volume to it."""
CACHE_DIR = "/cache"
MPS_DIR = "/mps"
MAX_ANSWERS = 8
"""`n` of one request. vLLM's own 16,384 are more than any engine runs and queues: they would be 503 for ever."""
MAX_COMPLETION_PROMPTS = 16
"""Prompts in one request for plain completions. Each counts as one request that the engine runs or queues."""
CODE_DIR = "/app"
"""The folder above manyeyes/ in the container of an engine and of the download."""
POD_DIR = f"{CODE_DIR}/manyeyes/engine/pod"
FRAME_PART = 5
"""A video frame may have this part of the pixels of a picture: all frames of a video are decoded together. 10 million by default."""


def image_of(cluster: PlacedCluster, engine: Engine) -> str:
    return {
        "cuda": cluster.images.vllm_cuda,
        "cpu": cluster.images.vllm_cpu,
        "emulated": cluster.images.emulator,
    }[engine.flavour]


def environment_of(cluster: PlacedCluster, pool: Pool, engine: Engine) -> dict[str, str]:
    # Opens /sleep, /wake_up and more of vLLM's own, without a key: to the cluster's network only, the gateway passes none of them.
    asleep = {"VLLM_SERVER_DEV_MODE": "1"} if sleeps(pool) else {}
    environment = asleep | {
        # Above nginx's 60 s, so that nginx, not the engine, closes idle connections: no reset on a reused one.
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "75",
        "VLLM_MAX_IMAGE_PIXELS": str(pool.media.max_decoded_pixels),
        "VLLM_MAX_N_SEQUENCES": str(MAX_ANSWERS),
        "VLLM_MAX_COMPLETION_PROMPTS": str(MAX_COMPLETION_PROMPTS),
    }
    if engine.flavour == "emulated":
        return environment
    environment |= {
        # The user has no name in the image, and Python's getpass wants one.
        "USER": "engine",
        "TRITON_CACHE_DIR": f"{CACHE_DIR}/triton",
        "TORCHINDUCTOR_CACHE_DIR": f"{CACHE_DIR}/inductor",
        "HF_HOME": MODELS_DIR,
        # The downloader has fetched everything; an engine that asked the hub again would race with the others.
        "HF_HUB_OFFLINE": "1",
        "HOME": CACHE_DIR,
        "VLLM_CACHE_ROOT": f"{CACHE_DIR}/vllm",
        # Several vLLM on one host compete for cores: one thread each gives "significant throughput improvement"
        # (vLLM's Qwen3-VL recipe).
        "OMP_NUM_THREADS": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
        "VLLM_MEDIA_FETCH_MAX_RETRIES": "1",
    }
    environment |= media_environment(pool, engine)
    if engine.flavour == "cpu":
        threads = 1 if pool.is_tiny else cluster.cpu_threads
        environment |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(threads)}
        # With --enforce-eager: no C++ compilation on the first request that asks for logprobs.
        environment |= {"TORCHDYNAMO_DISABLE": "1"}
    if uses_mps(cluster) and engine.gpu_fraction < 1:
        environment |= {
            "CUDA_MPS_PIPE_DIRECTORY": f"{MPS_DIR}/pipe",
            "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": str(round(engine.gpu_fraction * 100)),
        }
    return environment


def media_environment(pool: Pool, engine: Engine) -> dict[str, str]:
    """Of manyeyes/engine/pod/media_memory.py, and how many threads decode: together they must stay within memory_gb."""
    memory = memory_gb(engine, pool)
    return {
        "VLLM_MEDIA_CONNECTOR": "bounded",
        # One decoded pixel takes up to 8 bytes while it is converted, 400 MB for a picture of 50 million.
        "VLLM_MEDIA_LOADING_THREAD_COUNT": str(max(1, min(8, int(memory / 4)))),
        "MANYEYES_MEDIA_MEMORY_MB": str(round(memory * 1024 / 8)),
        "MANYEYES_MEDIA_PIXELS": str(pool.media.max_pixels),
        "MANYEYES_FRAME_PIXELS": str(pool.media.max_decoded_pixels // FRAME_PART),
    }


def logging_flags(cluster: PlacedCluster, engine: Engine) -> list[str]:
    """What an engine says of requests. With manyeyes/observability/vllm.json a line has the request's id and nothing of its content."""
    requests = ["--enable-log-requests"] if cluster.logs.engine_requests else []
    traced = cluster.tracing.enabled and engine.flavour != "emulated"
    return [*requests, *([f"--otlp-traces-endpoint={cluster.tracing.collector}/v1/traces"] if traced else [])]


def logging_environment(cluster: PlacedCluster, engine: Engine) -> dict[str, str]:
    """For log lines and spans."""
    named = {"MANYEYES_ENGINE": engine.name, "MANYEYES_POOL": engine.pool}
    if engine.flavour == "emulated":
        return named
    logs = {
        "PYTHONPATH": f"{CODE_DIR}:{POD_DIR}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "VLLM_LOGGING_CONFIG_PATH": f"{CODE_DIR}/manyeyes/observability/vllm.json",
    }
    if not cluster.tracing.enabled:
        return named | logs
    return (
        named
        | logs
        | {
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            "OTEL_SERVICE_NAME": "engine",
            "OTEL_RESOURCE_ATTRIBUTES": f"manyeyes.engine={engine.name},manyeyes.pool={engine.pool}",
        }
    )


def shm_gb(engine: Engine) -> float:
    """Docker's 64 MB makes vLLM hang or crash; tensor-parallel ranks talk through shared memory."""
    if engine.shm_gb:
        return engine.shm_gb
    if engine.flavour == "cpu":
        return 1
    return 4 + 4 * engine.parallel


def memory_gb(engine: Engine, pool: Pool) -> float:
    """Limit of host memory."""
    by_flavour = {"cuda": 24.0 + 8 * engine.parallel, "cpu": 4.0 if pool.is_tiny else 14.0, "emulated": 0.25}
    return engine.memory_gb or by_flavour[engine.flavour]


def download_environment(wanted: list[dict[str, object]]) -> dict[str, str]:
    """Of manyeyes/engine/model_download.py beyond one host, and of engines that wait for it. `wanted`: wanted_models()."""
    return {
        "MODELS": json.dumps(wanted),
        "HF_HOME": MODELS_DIR,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def wanted_models(cluster: PlacedCluster) -> list[dict[str, Any]]:
    """What manyeyes/engine/model_download.py is told to bring, as $MODELS."""
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
    """{host that engines may fetch from: whether it may be at a private address}."""
    allowed: dict[str, bool] = {}
    for pool in (cluster.pool_of(engine) for engine in cluster.started_engines if engine.flavour != "emulated"):
        for domain in pool.media.allowed_domains:
            name = domain.lower()
            allowed[name] = allowed.get(name, False) or pool.media.allow_private
    return allowed


def fetches(pool: Pool, engine: Engine) -> bool:
    return bool(pool.media.allowed_domains) and engine.flavour != "emulated"


def proxy_environment(pool: Pool, engine: Engine) -> dict[str, str]:
    """vLLM's HTTP client heeds these: the engine has no way out of its own."""
    if not fetches(pool, engine):
        return {}
    proxy = f"http://media:{MEDIA_PORT}"
    return {"http_proxy": proxy, "https_proxy": proxy, "no_proxy": "localhost,127.0.0.1"}


def media_service(cluster: PlacedCluster, allowed: dict[str, bool]) -> dict[str, Any]:
    """The one way out for engines that may fetch pictures by URL: it checks where a name leads before it connects."""
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
