"""Renders every file under deploy/kubernetes/ except its README. Pure: the same input gives the same bytes.

base/               gateway, page, policies: the same for every flavour
engines/FLAVOUR/    pools, weights, and the files of gateway and controller that depend on pools
monitoring/ keda/ hpa/ route/    components for clusters with the operators that they require
overlays/NAME/      the folders to apply
production-stack/   values for vLLM production-stack's Helm chart
"""

from manyeyes.config.cluster import Cluster
from manyeyes.config.credentials import ApiKeys
from manyeyes.config.placement import PlacedCluster
from manyeyes.engine.vllm_flags import serve_flags
from manyeyes.render.engine_container import environment_of, image_of, memory_gb, shm_gb
from manyeyes.render.kubernetes import models, network, operators, own_services
from manyeyes.render.kubernetes.engines import pools
from manyeyes.render.kubernetes.own_services import http_route
from manyeyes.render.kubernetes.pod_spec import HEADER, PART_OF, Json, environment, kustomization, objects
from manyeyes.render.multi_node_clusters import (
    EngineGroup,
    clusters,
    group_engines,
    multi_node_config,
    uniform_pools,
)
from manyeyes.render.nginx.files import NO_KEYS
from manyeyes.render.rendered_file import plain_yaml

UNHASHED = {"disableNameSuffixHash": True}
"""ConfigMaps that are changed in place: the programs that read them watch for changes, so a change restarts no pod."""


def tree(cluster: Cluster, keys: ApiKeys = NO_KEYS, root: str = "../..") -> dict[str, str]:
    """{path: text}.

    Raises PlacementError that lists what Kubernetes cannot run. `root` is the path from the tree to the repository.
    """
    placed_clusters = clusters(cluster)
    main = next(iter(placed_clusters))  # the cluster with GPUs, else the first
    files = _base(placed_clusters[main], root) | _components(placed_clusters[main], root)
    for flavour, placed in placed_clusters.items():
        files |= {f"engines/{flavour}/{name}": text for name, text in _engines(placed, keys, root).items()}
    files |= _overlays(placed_clusters[main], list(placed_clusters), main)
    files["production-stack/values.yaml"] = HEADER + plain_yaml(production_stack_values(placed_clusters[main]))
    return files


def _base(cluster: PlacedCluster, root: str) -> dict[str, str]:
    namespace: Json = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": cluster.kubernetes.namespace,
            "labels": PART_OF | {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")},
        },
    }
    parts = {
        "namespace.yaml": [namespace],
        "gateway.yaml": own_services.gateway(cluster),
        "controller.yaml": own_services.controller(cluster),
        "webui.yaml": own_services.webui(cluster),
        "network.yaml": network.base(cluster),
    }
    # The kustomization in nginx/ makes ConfigMaps of nginx's files: a kustomization cannot read files above its folder.
    resources = [*parts, f"../{root}/nginx"]
    return {f"base/{name}": objects(documents) for name, documents in parts.items()} | {
        "base/kustomization.yaml": kustomization(resources=resources)
    }


def _engines(cluster: PlacedCluster, keys: ApiKeys, root: str) -> dict[str, str]:
    parts = {"pools.yaml": pools(cluster)}
    if storage := models.storage(cluster):
        parts["models.yaml"] = storage
    if egress := network.egress_policies(cluster):
        parts["network.yaml"] = egress
    rendered = own_services.generation_files(cluster, keys)
    maps = [
        {
            "name": own_services.GATEWAY_FILES,
            "files": [f"gateway/{name}" for name in sorted(rendered)],
            "options": UNHASHED,
        },
        {"name": own_services.CONFIG, "files": ["controller/cluster.yaml"], "options": UNHASHED},
    ]
    return {
        **{name: objects(documents) for name, documents in parts.items()},
        **{f"gateway/{name}": text for name, text in rendered.items()},
        "controller/cluster.yaml": HEADER + multi_node_config(cluster),
        "kustomization.yaml": kustomization(
            resources=[*parts, f"../../{root}/manyeyes/engine", f"../../{root}/manyeyes/observability"],
            configMapGenerator=maps,
        ),
    }


def _components(cluster: PlacedCluster, root: str) -> dict[str, str]:
    """Each component requires CustomResourceDefinitions or an adapter that a bare cluster does not have."""
    return {
        "monitoring/monitors.yaml": objects(operators.monitors(cluster)),
        "monitoring/kustomization.yaml": kustomization(
            component=True, resources=["monitors.yaml", f"../{root}/monitoring/grafana"]
        ),
        "keda/scaled-objects.yaml": objects(operators.scaled_objects(cluster)),
        "keda/kustomization.yaml": kustomization(
            component=True, resources=["scaled-objects.yaml"], patches=_unmanaged_replicas(cluster)
        ),
        "hpa/autoscalers.yaml": objects(operators.autoscalers(cluster)),
        "hpa/kustomization.yaml": kustomization(
            component=True, resources=["autoscalers.yaml"], patches=_unmanaged_replicas(cluster)
        ),
        "hpa/prometheus-adapter-values.yaml": HEADER + plain_yaml(operators.adapter_rules()),
        "route/route.yaml": objects([http_route(cluster)]),
        "route/kustomization.yaml": kustomization(component=True, resources=["route.yaml"]),
    }


def _unmanaged_replicas(cluster: PlacedCluster) -> list[Json]:
    """Patches that remove `replicas`, so that the next apply does not overrule the autoscaler."""
    return [
        {
            "target": {"kind": "Deployment", "name": group.name},
            "patch": plain_yaml([{"op": "remove", "path": "/spec/replicas"}]),
        }
        for group in uniform_pools(cluster)
    ]


def _overlays(cluster: PlacedCluster, flavours: list[str], main: str) -> dict[str, str]:
    namespace = cluster.kubernetes.namespace
    engines = {flavour: ["../../base", f"../../engines/{flavour}"] for flavour in flavours}
    overlays = {
        "one-node": kustomization(namespace=namespace, resources=engines[main], patches=[_one_gateway()]),
        "many-nodes": kustomization(
            namespace=namespace,
            resources=engines[main],
            components=["../../monitoring", "../../keda", "../../route"],
            patches=[
                _spread_gateways(),
                *(
                    [
                        _patch(
                            "PersistentVolumeClaim",
                            "models",
                            [{"op": "replace", "path": "/spec/accessModes", "value": ["ReadWriteMany"]}],
                        )
                    ]
                    if main != "emulated"
                    else []
                ),
            ],
        ),
    }
    for flavour in ("cpu", "emulated"):
        if flavour in engines:
            overlays[flavour] = kustomization(namespace=namespace, resources=engines[flavour], patches=[_one_gateway()])
    return {f"overlays/{name}/kustomization.yaml": text for name, text in overlays.items()}


def _one_gateway() -> Json:
    return _patch("Deployment", "gateway", [{"op": "replace", "path": "/spec/replicas", "value": 1}])


def _spread_gateways() -> Json:
    path = "/spec/template/spec/topologySpreadConstraints/0/whenUnsatisfiable"
    return _patch("Deployment", "gateway", [{"op": "replace", "path": path, "value": "DoNotSchedule"}])


def _patch(kind: str, name: str, operations: list[Json]) -> Json:
    return {"target": {"kind": kind, "name": name}, "patch": plain_yaml(operations)}


CHART_FLAGS = ("--host=", "--port=")
OWN_FILE_FLAGS = ("--middleware=media_memory.",)
"""Requires one of our files in the engine, which the chart does not mount."""


def production_stack_values(cluster: PlacedCluster) -> Json:
    """The same pools as values for vLLM production-stack's Helm chart. Emulated engines are left out, because they are
    not vLLM.

    The fields are the chart's: https://github.com/vllm-project/production-stack/blob/main/helm/values.yaml. The chart
    starts `vllm serve MODEL` with --host and --port, and adds a flag for each field of vllmConfig that is set. Our
    flags are in extraArgs instead.
    """
    models = [_model(cluster, group) for group in group_engines(cluster) if group.engine.flavour != "emulated"]
    return {
        "servingEngineSpec": {
            "enableEngine": True,
            "runtimeClassName": cluster.kubernetes.runtime_class or "",
            "containerPort": 8000,
            "modelSpec": models,
        },
        # The router's equivalent of session affinity by conversation; clients send the header.
        "routerSpec": {"enableRouter": True, "routingLogic": "session", "sessionKey": "x-conversation-id"},
    }


def _model(cluster: PlacedCluster, group: EngineGroup) -> Json:
    engine, pool = group.engine, group.pool
    repository, _, tag = image_of(cluster, engine).rpartition(":")
    model, *flags = serve_flags(cluster, engine)
    # The chart sets HF_HOME from its volume, and its engines download their models.
    variables = environment_of(cluster, pool, engine)
    passed_variables = {
        name: value
        for name, value in variables.items()
        if name not in ("HF_HOME", "HF_HUB_OFFLINE", "HOME", "VLLM_CACHE_ROOT", "VLLM_MEDIA_CONNECTOR")
        and not name.startswith("MANYEYES_")
    }
    gpus = {"requestGPU": engine.parallel, "requestGPUType": cluster.kubernetes.gpu_resource}
    return {
        "name": group.name,
        "repository": repository,
        "tag": tag,
        "modelURL": model,
        "replicaCount": group.count,
        "requestCPU": cluster.kubernetes.engine_cores if engine.flavour == "cuda" else cluster.cpu_threads,
        "requestMemory": f"{memory_gb(engine, pool):g}Gi",
        "limitMemory": f"{memory_gb(engine, pool):g}Gi",
        **(gpus if engine.flavour == "cuda" else {"requestGPU": 0}),
        "pvcStorage": f"{cluster.kubernetes.models_storage_gb}Gi",
        "shmSize": f"{shm_gb(engine):g}Gi",
        "vllmConfig": {
            # Without it the chart disables prefix caching.
            "enablePrefixCaching": True,
            # The chart mounts /dev/shm only if this is set.
            "tensorParallelSize": engine.parallel,
            "extraArgs": [
                flag for flag in flags if not flag.startswith((*CHART_FLAGS, *OWN_FILE_FLAGS, "--tensor-parallel-size"))
            ],
        },
        "env": environment(passed_variables),
    }
