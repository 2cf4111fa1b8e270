"""The same pools as values for vLLM production-stack's Helm chart, for those who run it already.

The chart's own fields: https://github.com/vllm-project/production-stack/blob/main/helm/values.yaml. It starts `vllm serve MODEL`
with --host and --port, and adds flags of its own where vllmConfig says something; so what it would add is left to ours.
"""

from manyeyes.config.placement import PlacedCluster
from manyeyes.engine.vllm_flags import serve_flags
from manyeyes.render.engine_container import environment_of, image_of, memory_gb, shm_gb
from manyeyes.render.engine_groups import EngineGroup, group_engines
from manyeyes.render.kubernetes.pod_spec import Json, environment

CHARTS_OWN = ("--host=", "--port=")
OURS = ("--middleware=media_memory.",)
"""Needs a file of ours in the engine, which the chart does not mount."""


def values(cluster: PlacedCluster) -> Json:
    """Raises nothing: emulated engines, which are no vLLM, are left out."""
    models = [_model(cluster, shape) for shape in group_engines(cluster) if shape.engine.flavour != "emulated"]
    return {
        "servingEngineSpec": {
            "enableEngine": True,
            "runtimeClassName": cluster.kubernetes.runtime_class or "",
            "containerPort": 8000,
            "modelSpec": models,
        },
        # The router's counterpart of conversation-aware balancing; clients send the header.
        "routerSpec": {"enableRouter": True, "routingLogic": "session", "sessionKey": "x-conversation-id"},
    }


def _model(cluster: PlacedCluster, shape: EngineGroup) -> Json:
    engine, pool = shape.engine, shape.pool
    repository, _, tag = image_of(cluster, engine).rpartition(":")
    model, *flags = serve_flags(cluster, engine)
    # The chart sets these two itself: HF_HOME by its volume; and it downloads in the engine.
    left = environment_of(cluster, pool, engine)
    kept = {
        name: value
        for name, value in left.items()
        if name not in ("HF_HOME", "HF_HUB_OFFLINE", "HOME", "VLLM_CACHE_ROOT", "VLLM_MEDIA_CONNECTOR")
        and not name.startswith("MANYEYES_")
    }
    gpus = {"requestGPU": engine.parallel, "requestGPUType": cluster.kubernetes.gpu_resource}
    return {
        "name": shape.name,
        "repository": repository,
        "tag": tag,
        "modelURL": model,
        "replicaCount": shape.count,
        "requestCPU": cluster.kubernetes.engine_cores if engine.flavour == "cuda" else cluster.cpu_threads,
        "requestMemory": f"{memory_gb(engine, pool):g}Gi",
        "limitMemory": f"{memory_gb(engine, pool):g}Gi",
        **(gpus if engine.flavour == "cuda" else {"requestGPU": 0}),
        "pvcStorage": f"{cluster.kubernetes.models_storage_gb}Gi",
        "shmSize": f"{shm_gb(engine):g}Gi",
        "vllmConfig": {
            # Left out, the chart switches it off.
            "enablePrefixCaching": True,
            # /dev/shm is mounted only where this is said.
            "tensorParallelSize": engine.parallel,
            "extraArgs": [
                flag for flag in flags if not flag.startswith((*CHARTS_OWN, *OURS, "--tensor-parallel-size"))
            ],
        },
        "env": environment(kept),
    }
