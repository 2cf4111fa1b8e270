"""Renders a Deployment for each shape of engine, a headless Service for each pool, and a disruption budget.

The Service named after the pool publishes the eligible engines in DNS, as the controller does on one host. nginx's
files are the same.
"""

from math import ceil

from manyeyes.config.engines import ENGINE_PORT, capacities
from manyeyes.config.placement import PlacedCluster
from manyeyes.config.pools import Pool
from manyeyes.engine.vllm_flags import MODELS_DIR, serve_flags
from manyeyes.render.engine_container import CACHE_DIR, environment_of, image_of, memory_gb, shm_gb
from manyeyes.render.kubernetes import models
from manyeyes.render.kubernetes.pod_spec import (
    OWN_USER,
    Json,
    deployment,
    disruption_budget,
    empty_dir,
    environment,
    kubernetes_object,
    labels,
    memory,
    pod,
    restricted_security,
    spread_over_nodes,
)
from manyeyes.render.multi_node_clusters import EngineGroup, group_engines

POOL, GROUP, FLAVOUR, CAPACITY = "manyeyes.pool", "manyeyes.shape", "manyeyes.flavour", "manyeyes.takes"
SCRIPTS_DIR = "/manyeyes"
STARTS_WITHIN_S = {"cuda": 1800, "cpu": 300, "emulated": 300}
"""Equal to Compose's start_period."""
PROBE_INTERVAL_S = 5
CACHE_GB = 20
DNS_RETRY_S = 3
"""nginx queries DNS again after its answer has expired, with a timeout of 2 s."""


def pools(cluster: PlacedCluster) -> list[Json]:
    groups = group_engines(cluster)
    documents = []
    for pool in cluster.pools:
        pool_groups = [group for group in groups if group.pool is pool]
        if pool_groups:
            documents += _services(cluster, pool)
            documents.append(disruption_budget(pool.name, {POOL: pool.name}, labels("engine")))
            documents += [engine_deployment(cluster, group) for group in pool_groups]
    return documents


def _services(cluster: PlacedCluster, pool: Pool) -> list[Json]:
    """A Service with all engines of the pool. If their capacities differ, also a Service for each capacity."""
    services = [_service(pool.name, {POOL: pool.name})]
    capacity_list = sorted(set(capacities(pool, cluster.engines).values()), reverse=True)
    if len(capacity_list) > 1:
        services += [
            _service(f"{pool.name}-c{capacity}", {POOL: pool.name, CAPACITY: str(capacity)})
            for capacity in capacity_list
        ]
    return services


def _service(name: str, selector: dict[str, str]) -> Json:
    return kubernetes_object(
        "Service",
        name,
        {
            "clusterIP": "None",
            "selector": selector,
            "ports": [{"name": "http", "port": ENGINE_PORT, "targetPort": "http"}],
        },
        object_labels=labels("engine") | {POOL: selector[POOL]},
    )


def engine_deployment(cluster: PlacedCluster, group: EngineGroup) -> Json:
    selector = {POOL: group.pool.name, GROUP: str(group.number)}
    object_labels = labels("engine") | selector
    return deployment(
        group.name,
        group.count,
        selector,
        _pod(cluster, group),
        object_labels,
        pod_labels=object_labels | {FLAVOUR: group.engine.flavour, CAPACITY: str(group.max_in_flight)},
        progressDeadlineSeconds=STARTS_WITHIN_S[group.engine.flavour] + 600,
        # One pod after the other and no surge pod: there is no spare GPU.
        strategy={"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
    )


def leaves_within_s(cluster: PlacedCluster) -> int:
    """Maximum time from the decision to stop a pod until its engine is killed."""
    return _announced_s(cluster) + cluster.shutdown.finish_s + cluster.shutdown.grace_s


def _announced_s(cluster: PlacedCluster) -> int:
    return cluster.kubernetes.dns_cache_s + cluster.kubernetes.resolve_interval_s + DNS_RETRY_S


def _pod(cluster: PlacedCluster, group: EngineGroup) -> Json:
    is_vllm = group.engine.flavour != "emulated"
    fields: Json = {"terminationGracePeriodSeconds": leaves_within_s(cluster)}
    if group.engine.flavour == "cuda" and cluster.kubernetes.runtime_class:
        fields["runtimeClassName"] = cluster.kubernetes.runtime_class
    fields["topologySpreadConstraints"] = spread_over_nodes({POOL: group.pool.name})
    if is_vllm:
        fields["initContainers"] = [models.wait(cluster, group)]
    fields["containers"] = [_container(cluster, group)]
    fields["volumes"] = [
        {"name": "scripts", "configMap": {"name": "engine-pod"}},
        empty_dir("tmp", 2),
    ]
    if is_vllm:
        fields["volumes"] += [
            models.volume(read_only=True),
            models.code_volume(),
            empty_dir("cache", CACHE_GB),
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": memory(shm_gb(group.engine))}},
        ]
    return pod(OWN_USER, **fields)


def _container(cluster: PlacedCluster, group: EngineGroup) -> Json:
    engine, pool = group.engine, group.pool
    mounts: list[Json] = [
        {"name": "scripts", "mountPath": SCRIPTS_DIR, "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},
    ]
    if engine.flavour != "emulated":
        mounts += [
            {"name": "models", "mountPath": MODELS_DIR, "readOnly": True},
            {"name": "cache", "mountPath": CACHE_DIR},
            {"name": "shm", "mountPath": "/dev/shm"},
        ]
    return {
        "name": "engine",
        "image": image_of(cluster, engine),
        "imagePullPolicy": "IfNotPresent",
        # Kubernetes expands $(...) as a variable.
        "args": [flag.replace("$", "$$") for flag in serve_flags(cluster, engine)],
        "env": environment(environment_of(cluster, pool, engine) | _user_environment(group)),
        "ports": [{"name": "http", "containerPort": ENGINE_PORT}],
        "resources": _resources(cluster, group),
        "securityContext": restricted_security(),
        "startupProbe": _startup(cluster, group),
        "readinessProbe": _readiness(cluster),
        **_liveness(cluster),
        "lifecycle": {
            "preStop": {
                "exec": {
                    "command": [
                        "python3",
                        f"{SCRIPTS_DIR}/pre_stop.py",
                        f"--announced-s={_announced_s(cluster)}",
                        f"--finish-s={cluster.shutdown.finish_s}",
                    ]
                }
            }
        },
        "volumeMounts": mounts,
    }


def _user_environment(group: EngineGroup) -> dict[str, str]:
    """Environment for a user without an entry in /etc/passwd, which PyTorch reads. It can write to /cache and /tmp
    only.

    vLLM imports media_memory.py from PYTHONPATH.
    """
    if group.engine.flavour == "emulated":
        return {}
    return {"PYTHONPATH": SCRIPTS_DIR, "LOGNAME": "engine", "XDG_CACHE_HOME": f"{CACHE_DIR}/xdg"}


def _resources(cluster: PlacedCluster, group: EngineGroup) -> Json:
    engine = group.engine
    cores = {
        "cuda": cluster.kubernetes.engine_cores,
        "cpu": float(1 if group.pool.is_tiny else cluster.cpu_threads),
        "emulated": 0.25,
    }[engine.flavour]
    # /dev/shm counts as memory of the pod.
    gb = memory_gb(engine, group.pool) + (shm_gb(group.engine) if engine.flavour != "emulated" else 0)
    gpus = {cluster.kubernetes.gpu_resource: str(engine.parallel)} if engine.flavour == "cuda" else {}
    return {
        "requests": {"cpu": f"{cores:g}", "memory": memory(gb), **gpus},
        "limits": {"memory": memory(gb), **gpus},
    }


def _startup(cluster: PlacedCluster, group: EngineGroup) -> Json:
    controller = cluster.controller
    command = [
        "python3",
        f"{SCRIPTS_DIR}/startup_probe.py",
        group.pool.name,
        f"--timeout-s={controller.warm_up_timeout_s:g}",
    ]
    if group.pool.media.images_per_prompt == 0:
        command.append("--no-picture")
    return {
        "exec": {"command": command},
        "periodSeconds": PROBE_INTERVAL_S,
        "timeoutSeconds": ceil(controller.warm_up_timeout_s) + 5,
        "failureThreshold": STARTS_WITHIN_S[group.engine.flavour] // PROBE_INTERVAL_S,
    }


def _readiness(cluster: PlacedCluster) -> Json:
    """A tolerant probe: a saturated vLLM answers /health after tens of seconds and must remain in its pool.

    A dead engine refuses the connection immediately.
    """
    controller = cluster.controller
    return {
        "httpGet": {"path": "/health", "port": "http"},
        "periodSeconds": ceil(controller.probe_interval_s),
        "timeoutSeconds": ceil(controller.probe_timeout_s),
        "failureThreshold": controller.fall,
        "successThreshold": controller.rise,
    }


def _liveness(cluster: PlacedCluster) -> Json:
    """Restarts an engine that has not answered for restart_hung_after_s."""
    controller = cluster.controller
    if controller.restart_hung_after_s is None:
        return {}
    timeout_s = ceil(min(controller.probe_timeout_s, controller.restart_hung_after_s))
    return {
        "livenessProbe": {
            "httpGet": {"path": "/health", "port": "http"},
            "periodSeconds": 10,
            "timeoutSeconds": timeout_s,
            "failureThreshold": max(1, ceil(controller.restart_hung_after_s / timeout_s)),
        }
    }
