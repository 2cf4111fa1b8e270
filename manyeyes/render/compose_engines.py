"""Renders engines.yaml: one Compose service per engine, the model download they wait for, and their networks.

The network `cluster` is internal: engines, gateway, controller and Prometheus are in it, and it has no route to the
outside.
"""

import json
from typing import Any

from manyeyes.config.engines import ENGINE_PORT, Engine
from manyeyes.config.placement import PlacedCluster
from manyeyes.config.pools import Pool
from manyeyes.engine.vllm_flags import MODELS_DIR, model_path, serve_flags
from manyeyes.render.compose_env import logging_options
from manyeyes.render.engine_container import (
    CACHE_DIR,
    CODE_DIR,
    MPS_DIR,
    POD_DIR,
    USER,
    environment_of,
    image_of,
    logging_environment,
    logging_flags,
    may_fetch_media,
    media_domains,
    media_service,
    memory_gb,
    models_to_download,
    proxy_environment,
    runs_vllm,
    shm_gb,
    uses_mps,
)
from manyeyes.render.rendered_file import as_yaml

LOCKS_DIR = "/starting"
"""Path of the locks with which engines of one GPU start one after the other."""
STAND_INS = "stand-ins"
"""The Compose profile of engines that run in place of another engine."""


def engines_yaml(cluster: PlacedCluster) -> str:
    engines = cluster.started_engines
    services: dict[str, Any] = {}
    if runs_vllm(cluster):
        services["models"] = _models_service(cluster)
    if uses_mps(cluster):
        services["mps"] = _mps_service(cluster)
    if allowed := media_domains(cluster):
        services["media"] = media_service(cluster, allowed)
    for engine in engines:
        services[engine.name] = _engine_service(cluster, engine)
    document: dict[str, Any] = {"services": services, "networks": _networks(cluster)}
    if volumes := _volumes(cluster):
        document["volumes"] = volumes
    return as_yaml(document)


def _networks(cluster: PlacedCluster) -> dict[str, Any]:
    networks: dict[str, Any] = {"cluster": {"internal": True, "ipam": {"config": [_addresses(cluster)]}}}
    if runs_vllm(cluster):
        networks["download"] = None  # used by the downloader only
    if media_domains(cluster):
        networks["media"] = {"internal": True}
        networks["media-outside"] = None
    if any(_sends_spans_outside(cluster, engine) for engine in cluster.started_engines):
        networks["tracing"] = None  # route to the operator's collector; it also reaches other hosts
    return networks


def _sends_spans_outside(cluster: PlacedCluster, engine: Engine) -> bool:
    """Whether the engine sends its spans to a collector outside the cluster."""
    return cluster.tracing.enabled and not cluster.tracing.starts_jaeger and engine.flavour != "emulated"


def _networks_of(cluster: PlacedCluster, pool: Pool, engine: Engine) -> list[str]:
    media_network = ["media"] if may_fetch_media(pool, engine) else []
    return ["cluster", *media_network, *(["tracing"] if _sends_spans_outside(cluster, engine) else [])]


def _is_root(cluster: PlacedCluster, engine: Engine) -> bool:
    """Whether the engine runs as root.

    Folders of this host belong to host users. An MPS server serves only processes of the same user, and its volume
    belongs to root.
    """
    has_host_folder = any(volume.startswith("/") for volume in (cluster.models.volume, cluster.models.cache_volume))
    return engine.flavour != "emulated" and (has_host_folder or (uses_mps(cluster) and engine.gpu_fraction < 1))


def _addresses(cluster: PlacedCluster) -> dict[str, str]:
    """Docker assigns addresses from the upper half of the subnet; the controller's fixed address is in the lower
    half."""
    network = cluster.network
    return {"subnet": str(network.subnet), "ip_range": str(network.assigned_range)}


def _volumes(cluster: PlacedCluster) -> dict[str, Any]:
    volumes: dict[str, Any] = {}
    if runs_vllm(cluster):
        for volume in (cluster.models.volume, cluster.models.cache_volume):
            if not volume.startswith("/"):
                volumes[volume] = None
    if uses_mps(cluster):
        volumes["mps"] = None
    return volumes


def _engine_service(cluster: PlacedCluster, engine: Engine) -> dict[str, Any]:
    pool = cluster.pool_of(engine)
    is_emulated = engine.flavour == "emulated"
    service: dict[str, Any] = {
        "image": image_of(cluster, engine),
        # Compose reads $$ as $.
        "command": [
            flag.replace("$", "$$") for flag in (*serve_flags(cluster, engine), *logging_flags(cluster, engine))
        ],
        "environment": environment_of(cluster, pool, engine)
        | _host_environment(engine)
        | proxy_environment(pool, engine)
        | logging_environment(cluster, engine),
        "labels": {"manyeyes.engine": engine.name, "manyeyes.pool": pool.name, "manyeyes.flavour": engine.flavour},
        "networks": _networks_of(cluster, pool, engine),
        "expose": [str(ENGINE_PORT)],
        "init": True,
        "user": "0:0" if _is_root(cluster, engine) else USER,
        "read_only": True,
        # Kernel compilers execute files that they have just written.
        "tmpfs": ["/tmp:size=16m,mode=1777" if is_emulated else "/tmp:size=4g,mode=1777,exec"],
        "restart": _restart_policy(pool),
        "stop_grace_period": f"{cluster.shutdown.grace_s}s",
        "healthcheck": _healthcheck(engine),
        "security_opt": ["no-new-privileges:true"],
        "cap_drop": ["ALL"],
        "logging": logging_options(cluster),
    }
    if engine.time_shares_with is not None:
        # Another engine uses its GPU until the autoscaler starts this engine, so `docker compose up` does not start it.
        service["profiles"] = [STAND_INS]
    if is_emulated:
        service["build"] = own_build("docker/emulator/Dockerfile")
    else:
        service["volumes"] = _engine_mounts(cluster, pool, engine)
        if any(volume.startswith("/") for volume in (cluster.models.volume, cluster.models.cache_volume)):
            service["cap_add"] = ["DAC_OVERRIDE"]  # folders of this host belong to host users, not to root
        service["shm_size"] = f"{shm_gb(engine):g}g"
        service["depends_on"] = {"models": {"condition": "service_completed_successfully"}}
    if _shares_a_gpu(cluster, engine):
        locks = [f"{LOCKS_DIR}/{gpu.replace('/', '-')}.lock" for gpu in sorted(engine.gpus)]
        service["entrypoint"] = ["python3", f"{POD_DIR}/one_at_a_time.py", *locks, "--", "vllm", "serve"]
    if engine.flavour == "cuda":
        service["ulimits"] = {"memlock": -1, "stack": 67_108_864}
        if uses_mps(cluster) and engine.gpu_fraction < 1:
            service["ipc"] = "service:mps"
            del service["shm_size"]  # the mps service sets it
            service["depends_on"]["mps"] = {"condition": "service_healthy"}
    service["deploy"] = {"resources": _resources(engine, pool)}
    return service


def _shares_a_gpu(cluster: PlacedCluster, engine: Engine) -> bool:
    """Whether Compose starts another engine that uses one of its GPUs, at the same time or in turn."""
    other_engines = (
        other_engine
        for other_engine in cluster.started_engines
        if other_engine is not engine and other_engine.flavour == "cuda"
    )
    return engine.flavour == "cuda" and any(set(other_engine.gpus) & set(engine.gpus) for other_engine in other_engines)


def _restart_policy(pool: Pool) -> str:
    """Engines that the controller starts and stops are not started when Docker restarts; the controller starts the
    required engines."""
    is_stopped_by_controller = pool.scaling is not None and pool.scaling.actuator == "containers"
    return "unless-stopped" if is_stopped_by_controller else "always"


def own_build(dockerfile: str) -> dict[str, Any]:
    """The Compose build section of one of our images. The CA bundle is an optional secret, empty when unset."""
    return {
        "context": ".",
        "dockerfile": dockerfile,
        "args": {"PYTHON_IMAGE": "${PYTHON_IMAGE}"},
        "secrets": ["ca-certificates"],
    }


def _host_environment(engine: Engine) -> dict[str, str]:
    """A variable from .env for data-centre GPUs with an older driver (see `make doctor`). vLLM's default is 0."""
    name = "VLLM_ENABLE_CUDA_COMPATIBILITY"
    return {name: f"${{{name}:-0}}"} if engine.flavour == "cuda" else {}


def _logs_mount() -> dict[str, Any]:
    return {
        "type": "bind",
        "source": "./manyeyes/observability",
        "target": f"{CODE_DIR}/manyeyes/observability",
        "read_only": True,
    }


def _engine_mounts(cluster: PlacedCluster, pool: Pool, engine: Engine) -> list[dict[str, Any]]:
    mounts = [
        _mount(cluster.models.volume, MODELS_DIR, read_only=True),
        # Each engine executes what is in its cache, so no other engine can write to it.
        _cache_mount(cluster, f"engines/{engine.name}", CACHE_DIR),
        _logs_mount(),
        {"type": "bind", "source": "./manyeyes/engine/pod", "target": POD_DIR, "read_only": True},
    ]
    if _shares_a_gpu(cluster, engine):
        mounts.append(_cache_mount(cluster, "locks", LOCKS_DIR))
    if pool.is_local:
        mounts.append(_mount(pool.model, model_path(pool), read_only=True))
    if uses_mps(cluster) and engine.gpu_fraction < 1:
        mounts.append(_mount("mps", MPS_DIR))
    return mounts


def _mount(source: str, target: str, read_only: bool = False) -> dict[str, Any]:
    mount: dict[str, Any] = {"type": "bind" if source.startswith("/") else "volume", "source": source, "target": target}
    if source.startswith("/"):
        mount["bind"] = {"create_host_path": False}
    return mount | ({"read_only": True} if read_only else {})


def _cache_mount(cluster: PlacedCluster, folder: str, target: str) -> dict[str, Any]:
    """Mounts one folder of this cluster's caches; manyeyes/engine/model_download.py creates those of a volume."""
    volume = cluster.models.cache_volume
    if volume.startswith("/"):
        mount = _mount("/".join(part for part in (volume, cluster.name, folder) if part), target)
        return mount | {"bind": {"create_host_path": True}}
    return _mount(volume, target) | ({"volume": {"subpath": folder}} if folder else {})


def _healthcheck(engine: Engine) -> dict[str, Any]:
    url = f"http://127.0.0.1:{ENGINE_PORT}/health"
    if engine.flavour == "emulated":
        probe = ["CMD", "python", "-c", f"import urllib.request; urllib.request.urlopen('{url}', timeout=5)"]
    else:
        probe = ["CMD", "curl", "-fsS", "-o", "/dev/null", "--max-time", "30", url]
    # A saturated vLLM answers /health late. The controller decides membership, not this check.
    return {
        "test": probe,
        "interval": "60s" if engine.flavour == "emulated" else "15s",
        "timeout": "35s",
        "retries": 4,
        "start_period": "30m" if engine.flavour == "cuda" else "5m",
        "start_interval": "2s",
    }


def _resources(engine: Engine, pool: Pool) -> dict[str, Any]:
    resources: dict[str, Any] = {"limits": {"memory": f"{round(memory_gb(engine, pool) * 1024)}M", "pids": 4096}}
    if engine.gpus:
        resources["reservations"] = {
            "devices": [{"driver": "nvidia", "device_ids": list(engine.gpus), "capabilities": ["gpu"]}]
        }
    return resources


def _models_service(cluster: PlacedCluster) -> dict[str, Any]:
    """A service that runs once and downloads every model into the volume.

    All engines wait for it, so they do not race.
    """
    models = models_to_download(cluster)
    flavours = {engine.flavour for engine in cluster.started_engines}
    owners = {
        engine.name: "0:0" if _is_root(cluster, engine) else USER
        for engine in cluster.started_engines
        if engine.flavour != "emulated"
    }
    return {
        "image": cluster.images.vllm_cuda if "cuda" in flavours else cluster.images.vllm_cpu,
        "entrypoint": ["python3", "-m", "manyeyes.engine.model_download"],
        "working_dir": CODE_DIR,
        # Root, because it makes the engines' users the owners of their caches.
        "user": "0:0",
        "read_only": True,
        "tmpfs": ["/tmp:size=1g,mode=1777,exec"],
        "environment": {
            "HOME": "/tmp",
            "CACHE_DIR": CACHE_DIR,
            "CACHE_OWNERS": json.dumps(owners),
            "MODELS": json.dumps(models),
            "HF_HOME": MODELS_DIR,
            "HF_HUB_OFFLINE": "1" if cluster.models.offline else "0",
            "HF_TOKEN": "${HF_TOKEN:-}",
            "HF_ENDPOINT": "${HF_ENDPOINT:-https://huggingface.co}",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        "volumes": [
            _mount(cluster.models.volume, MODELS_DIR),
            _cache_mount(cluster, "", CACHE_DIR),
            {"type": "bind", "source": "./manyeyes/engine", "target": f"{CODE_DIR}/manyeyes/engine", "read_only": True},
            _logs_mount(),
        ],
        "networks": ["download"],
        "restart": "on-failure:3",
        "security_opt": ["no-new-privileges:true"],
        "cap_drop": ["ALL"],
        "cap_add": ["CHOWN", "DAC_OVERRIDE", "FOWNER"],
        "logging": logging_options(cluster),
        "deploy": {"resources": {"limits": {"memory": "4096M", "pids": 1024}}},
    }


def _mps_service(cluster: PlacedCluster) -> dict[str, Any]:
    """NVIDIA's Multi-Process Service: engines that share a GPU compute in parallel instead of in turns."""
    sharing = [engine for engine in cluster.started_engines if engine.gpu_fraction < 1]
    gpus = list(dict.fromkeys(gpu for engine in sharing for gpu in engine.gpus))
    return {
        "image": cluster.images.vllm_cuda,
        "entrypoint": ["nvidia-cuda-mps-control", "-f"],
        "environment": {"CUDA_MPS_PIPE_DIRECTORY": f"{MPS_DIR}/pipe", "CUDA_MPS_LOG_DIRECTORY": f"{MPS_DIR}/log"},
        "user": "0:0",
        "read_only": True,
        "tmpfs": ["/tmp:size=64m,mode=1777"],
        "ipc": "shareable",
        "shm_size": f"{sum(shm_gb(engine) for engine in sharing):g}g",
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
        "logging": logging_options(cluster),
        "deploy": {
            "resources": {
                "limits": {"memory": "2048M", "pids": 256},
                "reservations": {"devices": [{"driver": "nvidia", "device_ids": gpus, "capabilities": ["gpu"]}]},
            }
        },
    }
