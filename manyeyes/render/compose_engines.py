"""Cluster -> engines.yaml: one Compose service per engine, the downloader they wait for, and their networks.

`cluster` is closed: engines, gateway, controller and Prometheus are in it, and nothing leads out of it.
"""

import json
from typing import Any

from manyeyes.config.cluster import Cluster
from manyeyes.config.engines import ENGINE_PORT, Engine
from manyeyes.config.pools import Pool
from manyeyes.engine.vllm_flags import MODELS_DIR, TINY_DIR, model_path, serve_flags, sleeps
from manyeyes.render.compose_env import container_logs
from manyeyes.render.rendered_file import as_yaml

CACHE_DIR = "/cache"
STAND_INS = "stand-ins"
"""The Compose profile of engines that run instead of another."""
MPS_DIR = "/mps"
USER = "10001:10001"
"""Whom an engine runs as. The downloader hands the cache volume to it."""
MEDIA_PORT = 3128
MAX_ANSWERS = 8
"""`n` of one request. vLLM's own 16,384 are more than any engine runs and queues: they would be 503 for ever."""
MAX_COMPLETION_PROMPTS = 16
"""Prompts in one request for plain completions. Each counts as one request that the engine runs or queues."""
CODE_DIR = "/app"
"""The folder above manyeyes/ in the container of an engine and of the download."""
POD_DIR = f"{CODE_DIR}/manyeyes/engine/pod"
FRAME_PART = 5
"""A video frame may have this part of the pixels of a picture: all frames of a video are decoded together. 10 million by default."""


def engines_yaml(cluster: Cluster) -> str:
    """The text of engines.yaml for a laid-out cluster."""
    engines = cluster.started_engines
    services: dict[str, Any] = {}
    if runs_vllm(cluster):
        services["models"] = _models_service(cluster)
    if _mps(cluster):
        services["mps"] = _mps_service(cluster)
    if allowed := _media_domains(cluster):
        services["media"] = _media_service(cluster, allowed)
    for engine in engines:
        services[engine.name] = _engine_service(cluster, engine)
    document: dict[str, Any] = {"services": services, "networks": _networks(cluster)}
    if volumes := _volumes(cluster):
        document["volumes"] = volumes
    return as_yaml(document)


def _networks(cluster: Cluster) -> dict[str, Any]:
    networks: dict[str, Any] = {"cluster": {"internal": True, "ipam": {"config": [_addresses(cluster)]}}}
    if runs_vllm(cluster):
        networks["download"] = None  # only the downloader's
    if _media_domains(cluster):
        networks["media"] = {"internal": True}
        networks["media-outside"] = None
    if any(_tells_outside(cluster, engine) for engine in cluster.started_engines):
        networks["tracing"] = None  # to the operator's collector, and wherever else
    return networks


def _media_domains(cluster: Cluster) -> dict[str, bool]:
    """{host that engines may fetch from: whether it may be at a private address}."""
    allowed: dict[str, bool] = {}
    for pool in (cluster.pool(engine.pool) for engine in cluster.started_engines if engine.flavour != "emulated"):
        for domain in pool.media.allowed_domains:
            name = domain.lower()
            allowed[name] = allowed.get(name, False) or pool.media.allow_private
    return allowed


def _tells_outside(cluster: Cluster, engine: Engine) -> bool:
    """Its spans go to a collector that is not the cluster's own."""
    return cluster.tracing.enabled and not cluster.tracing.starts_jaeger and engine.flavour != "emulated"


def _networks_of(cluster: Cluster, pool: Pool, engine: Engine) -> list[str]:
    more = ["media"] if _fetches(pool, engine) else []
    return ["cluster", *more, *(["tracing"] if _tells_outside(cluster, engine) else [])]


def fetches_media(cluster: Cluster) -> bool:
    """Whether Compose starts the way out for pictures by URL."""
    return bool(_media_domains(cluster))


def _fetches(pool: Pool, engine: Engine) -> bool:
    return bool(pool.media.allowed_domains) and engine.flavour != "emulated"


def _is_root(cluster: Cluster, engine: Engine) -> bool:
    """Folders of this host belong to its users; an MPS server serves processes of its own user, and its volume is root's."""
    on_host = any(volume.startswith("/") for volume in (cluster.models.volume, cluster.models.cache_volume))
    return engine.flavour != "emulated" and (on_host or (_mps(cluster) and engine.share < 1))


def _addresses(cluster: Cluster) -> dict[str, str]:
    """Docker hands out the upper half of the subnet; the controller's fixed address is in the lower one."""
    network = cluster.network
    return {"subnet": str(network.subnet), "ip_range": str(network.handed_out)}


def runs_vllm(cluster: Cluster) -> bool:
    return any(engine.flavour != "emulated" for engine in cluster.started_engines)


def _mps(cluster: Cluster) -> bool:
    return cluster.gpu_sharing == "mps" and any(engine.share < 1 for engine in cluster.started_engines)


def _volumes(cluster: Cluster) -> dict[str, Any]:
    volumes: dict[str, Any] = {}
    if runs_vllm(cluster):
        for volume in (cluster.models.volume, cluster.models.cache_volume):
            if not volume.startswith("/"):
                volumes[volume] = None
    if _mps(cluster):
        volumes["mps"] = None
    return volumes


def _engine_service(cluster: Cluster, engine: Engine) -> dict[str, Any]:
    pool = cluster.pool(engine.pool)
    emulated = engine.flavour == "emulated"
    service: dict[str, Any] = {
        "image": image_of(cluster, engine),
        "command": [*serve_flags(cluster, engine), *telling_flags(cluster, engine)],
        "environment": environment_of(cluster, pool, engine)
        | _of_this_host(engine)
        | _way_out(pool, engine)
        | telling_environment(cluster, engine),
        "labels": {"manyeyes.engine": engine.name, "manyeyes.pool": pool.name, "manyeyes.flavour": engine.flavour},
        "networks": _networks_of(cluster, pool, engine),
        "expose": [str(ENGINE_PORT)],
        "init": True,
        "user": "0:0" if _is_root(cluster, engine) else USER,
        "read_only": True,
        # Compilers of kernels run what they have just written.
        "tmpfs": ["/tmp:size=16m,mode=1777" if emulated else "/tmp:size=4g,mode=1777,exec"],
        "restart": _restart(pool),
        "stop_grace_period": f"{cluster.shutdown.grace_s}s",
        "healthcheck": _healthcheck(engine),
        "security_opt": ["no-new-privileges:true"],
        "cap_drop": ["ALL"],
        "logging": container_logs(cluster),
    }
    if engine.instead_of is not None:
        # Its GPU belongs to another engine until scaling hands it over: `docker compose up` leaves it alone.
        service["profiles"] = [STAND_INS]
    if emulated:
        service["build"] = own_build("docker/emulator/Dockerfile")
    else:
        service["volumes"] = _engine_mounts(cluster, pool, engine)
        if any(volume.startswith("/") for volume in (cluster.models.volume, cluster.models.cache_volume)):
            service["cap_add"] = ["DAC_OVERRIDE"]  # folders of this host belong to its users, not to root
        service["shm_size"] = f"{shm_gb(engine):g}g"
        service["depends_on"] = {"models": {"condition": "service_completed_successfully"}}
    if _shares_a_gpu(cluster, engine):
        locks = [f"{CACHE_DIR}/starting/{gpu.replace('/', '-')}.lock" for gpu in sorted(engine.gpus)]
        service["entrypoint"] = ["python3", f"{POD_DIR}/one_at_a_time.py", *locks, "--", "vllm", "serve"]
    if engine.flavour == "cuda":
        service["ulimits"] = {"memlock": -1, "stack": 67_108_864}
        if _mps(cluster) and engine.share < 1:
            service["ipc"] = "service:mps"
            del service["shm_size"]  # it is the mps service's
            service["depends_on"]["mps"] = {"condition": "service_healthy"}
    service["deploy"] = {"resources": _resources(engine, pool)}
    return service


def _shares_a_gpu(cluster: Cluster, engine: Engine) -> bool:
    """Another engine that Compose starts uses one of its GPUs too, at the same time or in turn."""
    others = (other for other in cluster.started_engines if other is not engine and other.flavour == "cuda")
    return engine.flavour == "cuda" and any(set(other.gpus) & set(engine.gpus) for other in others)


def _restart(pool: Pool) -> str:
    """Engines that the controller starts and stops stay as it left them when Docker begins anew; it starts those that are needed."""
    stopped = pool.scaling is not None and pool.scaling.actuator == "containers"
    return "unless-stopped" if stopped else "always"


def own_build(dockerfile: str) -> dict[str, Any]:
    """How Compose builds one of our own images; the CA bundle is an optional secret, empty when unset."""
    return {
        "context": ".",
        "dockerfile": dockerfile,
        "args": {"PYTHON_IMAGE": "${PYTHON_IMAGE}"},
        "secrets": ["ca-certificates"],
    }


def image_of(cluster: Cluster, engine: Engine) -> str:
    return {
        "cuda": cluster.images.vllm_cuda,
        "cpu": cluster.images.vllm_cpu,
        "emulated": cluster.images.emulator,
    }[engine.flavour]


def environment_of(cluster: Cluster, pool: Pool, engine: Engine) -> dict[str, str]:
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
    if _mps(cluster) and engine.share < 1:
        environment |= {
            "CUDA_MPS_PIPE_DIRECTORY": f"{MPS_DIR}/pipe",
            "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": str(round(engine.share * 100)),
        }
    return environment


def _of_this_host(engine: Engine) -> dict[str, str]:
    """From .env: for data-centre GPUs under an older driver (`make doctor`). vLLM's own default is 0."""
    name = "VLLM_ENABLE_CUDA_COMPATIBILITY"
    return {name: f"${{{name}:-0}}"} if engine.flavour == "cuda" else {}


def media_environment(pool: Pool, engine: Engine) -> dict[str, str]:
    """Of manyeyes/engine/pod/media_memory.py, and how many threads decode: together they must stay within memory_gb."""
    memory = memory_gb(engine, pool)
    return {
        "VLLM_MEDIA_CONNECTOR": "bounded",
        # One decoded pixel takes up to 8 bytes while it is converted, 400 MB for a picture of 50 million.
        "VLLM_MEDIA_LOADING_THREAD_COUNT": str(max(1, min(8, int(memory / 4)))),
        "MANYEYES_MEDIA_ROOM_MB": str(round(memory * 1024 / 8)),
        "MANYEYES_MEDIA_PIXELS": str(pool.media.max_pixels),
        "MANYEYES_FRAME_PIXELS": str(pool.media.max_decoded_pixels // FRAME_PART),
    }


def _way_out(pool: Pool, engine: Engine) -> dict[str, str]:
    """vLLM's HTTP client heeds these: the engine has no way out of its own."""
    if not _fetches(pool, engine):
        return {}
    proxy = f"http://media:{MEDIA_PORT}"
    return {"http_proxy": proxy, "https_proxy": proxy, "no_proxy": "localhost,127.0.0.1"}


def telling_flags(cluster: Cluster, engine: Engine) -> list[str]:
    """What an engine says of requests. With manyeyes/observability/vllm.json a line has the request's id and nothing of its content."""
    requests = ["--enable-log-requests"] if cluster.logs.engine_requests else []
    traced = cluster.tracing.enabled and engine.flavour != "emulated"
    return [*requests, *([f"--otlp-traces-endpoint={cluster.tracing.collector}/v1/traces"] if traced else [])]


def telling_environment(cluster: Cluster, engine: Engine) -> dict[str, str]:
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


def _logs_mount() -> dict[str, Any]:
    return {
        "type": "bind",
        "source": "./manyeyes/observability",
        "target": f"{CODE_DIR}/manyeyes/observability",
        "read_only": True,
    }


def _engine_mounts(cluster: Cluster, pool: Pool, engine: Engine) -> list[dict[str, Any]]:
    mounts = [
        _mount(cluster.models.volume, MODELS_DIR, read_only=True),
        _mount(cluster.models.cache_volume, CACHE_DIR),
        _logs_mount(),
        {"type": "bind", "source": "./manyeyes/engine/pod", "target": POD_DIR, "read_only": True},
    ]
    if pool.is_local:
        mounts.append(_mount(pool.model, model_path(pool), read_only=True))
    if _mps(cluster) and engine.share < 1:
        mounts.append(_mount("mps", MPS_DIR))
    return mounts


def _mount(source: str, target: str, read_only: bool = False) -> dict[str, Any]:
    mount: dict[str, Any] = {"type": "bind" if source.startswith("/") else "volume", "source": source, "target": target}
    if source.startswith("/"):
        mount["bind"] = {"create_host_path": False}
    return mount | ({"read_only": True} if read_only else {})


def _healthcheck(engine: Engine) -> dict[str, Any]:
    url = f"http://127.0.0.1:{ENGINE_PORT}/health"
    if engine.flavour == "emulated":
        probe = ["CMD", "python", "-c", f"import urllib.request; urllib.request.urlopen('{url}', timeout=5)"]
    else:
        probe = ["CMD", "curl", "-fsS", "-o", "/dev/null", "--max-time", "30", url]
    # A saturated vLLM answers /health late; membership is the controller's business, not this check's.
    return {
        "test": probe,
        "interval": "60s" if engine.flavour == "emulated" else "15s",
        "timeout": "35s",
        "retries": 4,
        "start_period": "30m" if engine.flavour == "cuda" else "5m",
        "start_interval": "2s",
    }


def shm_gb(engine: Engine) -> float:
    """Docker's 64 MB makes vLLM hang or crash; tensor-parallel ranks talk through shared memory."""
    if engine.shm_gb:
        return engine.shm_gb
    if engine.flavour == "cpu":
        return 1
    return 4 + 4 * engine.parallel


def download_environment(wanted: list[dict[str, object]]) -> dict[str, str]:
    """Of manyeyes/engine/model_download.py beyond one host, and of engines that wait for it. `wanted`: wanted_models()."""
    return {
        "MODELS": json.dumps(wanted),
        "HF_HOME": MODELS_DIR,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def memory_gb(engine: Engine, pool: Pool) -> float:
    """Limit of host memory."""
    by_flavour = {"cuda": 24.0 + 8 * engine.parallel, "cpu": 4.0 if pool.is_tiny else 14.0, "emulated": 0.25}
    return engine.memory_gb or by_flavour[engine.flavour]


def _resources(engine: Engine, pool: Pool) -> dict[str, Any]:
    resources: dict[str, Any] = {"limits": {"memory": f"{round(memory_gb(engine, pool) * 1024)}M", "pids": 4096}}
    if engine.gpus:
        resources["reservations"] = {
            "devices": [{"driver": "nvidia", "device_ids": list(engine.gpus), "capabilities": ["gpu"]}]
        }
    return resources


def wanted_models(cluster: Cluster) -> list[dict[str, Any]]:
    """What manyeyes/engine/model_download.py is told to bring, as $MODELS."""
    pools = [
        cluster.pool(name) for name in dict.fromkeys(e.pool for e in cluster.started_engines if e.flavour != "emulated")
    ]
    return [
        {"model": pool.model, "revision": pool.revision, **({"folder": TINY_DIR} if pool.is_tiny else {})}
        for pool in pools
        if not pool.is_local
    ]


def _models_service(cluster: Cluster) -> dict[str, Any]:
    """Runs once: brings every model into the volume while all engines wait, so that they do not race for it."""
    wanted = wanted_models(cluster)
    flavours = {engine.flavour for engine in cluster.started_engines}
    all_root = all(_is_root(cluster, engine) for engine in cluster.started_engines if engine.flavour != "emulated")
    return {
        "image": cluster.images.vllm_cuda if "cuda" in flavours else cluster.images.vllm_cpu,
        "entrypoint": ["python3", "-m", "manyeyes.engine.model_download"],
        "working_dir": CODE_DIR,
        # Root, to hand the cache volume to the engines' user.
        "user": "0:0",
        "read_only": True,
        "tmpfs": ["/tmp:size=1g,mode=1777,exec"],
        "environment": {
            "HOME": "/tmp",
            **({"CACHE_DIR": CACHE_DIR, "ENGINE_USER": USER} if not all_root else {}),
            "MODELS": json.dumps(wanted),
            "HF_HOME": MODELS_DIR,
            "HF_HUB_OFFLINE": "1" if cluster.models.offline else "0",
            "HF_TOKEN": "${HF_TOKEN:-}",
            "HF_ENDPOINT": "${HF_ENDPOINT:-https://huggingface.co}",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        "volumes": [
            _mount(cluster.models.volume, MODELS_DIR),
            _mount(cluster.models.cache_volume, CACHE_DIR),
            {"type": "bind", "source": "./manyeyes/engine", "target": f"{CODE_DIR}/manyeyes/engine", "read_only": True},
            {
                "type": "bind",
                "source": "./manyeyes/observability",
                "target": f"{CODE_DIR}/manyeyes/observability",
                "read_only": True,
            },
        ],
        "networks": ["download"],
        "restart": "on-failure:3",
        "security_opt": ["no-new-privileges:true"],
        "cap_drop": ["ALL"],
        "cap_add": ["CHOWN", "DAC_OVERRIDE", "FOWNER"],
        "logging": container_logs(cluster),
        "deploy": {"resources": {"limits": {"memory": "4096M", "pids": 1024}}},
    }


def _media_service(cluster: Cluster, allowed: dict[str, bool]) -> dict[str, Any]:
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
        "logging": container_logs(cluster),
        "deploy": {"resources": {"limits": {"memory": "256M", "pids": 64}}},
    }


def _mps_service(cluster: Cluster) -> dict[str, Any]:
    """NVIDIA's Multi-Process Service: engines that share a GPU compute at once instead of in turns."""
    shared = [engine for engine in cluster.started_engines if engine.share < 1]
    gpus = list(dict.fromkeys(gpu for engine in shared for gpu in engine.gpus))
    return {
        "image": cluster.images.vllm_cuda,
        "entrypoint": ["nvidia-cuda-mps-control", "-f"],
        "environment": {"CUDA_MPS_PIPE_DIRECTORY": f"{MPS_DIR}/pipe", "CUDA_MPS_LOG_DIRECTORY": f"{MPS_DIR}/log"},
        "user": "0:0",
        "read_only": True,
        "tmpfs": ["/tmp:size=64m,mode=1777"],
        "ipc": "shareable",
        "shm_size": f"{sum(shm_gb(engine) for engine in shared):g}g",
        "volumes": [_mount("mps", MPS_DIR)],
        "network_mode": "none",
        "restart": "always",
        "healthcheck": {
            "test": ["CMD-SHELL", "echo get_server_list | nvidia-cuda-mps-control"],
            "interval": "15s",
            "start_period": "30s",
            "start_interval": "1s",
        },
        "security_opt": ["no-new-privileges:true"],
        "cap_drop": ["ALL"],
        "logging": container_logs(cluster),
        "deploy": {
            "resources": {
                "limits": {"memory": "2048M", "pids": 256},
                "reservations": {"devices": [{"driver": "nvidia", "device_ids": gpus, "capabilities": ["gpu"]}]},
            }
        },
    }
