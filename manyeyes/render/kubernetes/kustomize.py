"""Configuration -> every file under deploy/kubernetes/ but its README. Pure: the same input gives the same bytes.

base/               gateway, page, policies: what no flavour changes
engines/FLAVOUR/    pools, weights, and the files of gateway and controller that depend on pools
monitoring/ keda/ hpa/ route/    components, for clusters that have the operators they are for
overlays/NAME/      what is applied
production-stack/   values for another stack's Helm chart
"""

from manyeyes.config.cluster import Cluster
from manyeyes.config.keys import ApiKeys
from manyeyes.config.placement import PlacedCluster
from manyeyes.render.engine_groups import uniform_pools
from manyeyes.render.kubernetes import (
    autoscaling,
    gateway,
    models,
    monitoring,
    network,
    own_services,
    production_stack,
)
from manyeyes.render.kubernetes.engines import pools
from manyeyes.render.kubernetes.gateway import http_route
from manyeyes.render.kubernetes.pod_spec import HEADER, PART_OF, Json, kustomization, objects
from manyeyes.render.multi_node_clusters import clusters, main_flavour, multi_node_config
from manyeyes.render.nginx.files import NO_KEYS
from manyeyes.render.rendered_file import plain_yaml

UNHASHED = {"disableNameSuffixHash": True}
"""Changed in place: what reads them looks for changes itself, so that a change starts no pod anew."""


def tree(cluster: Cluster, keys: ApiKeys = NO_KEYS, root: str = "../..") -> dict[str, str]:
    """{path: text}. Raises PlacementError with what Kubernetes cannot run. `root` leads from the tree to the repository."""
    found = clusters(cluster)
    main = main_flavour(found)
    files = _base(found[main], root) | _components(found[main], root)
    for flavour, laid_out in found.items():
        files |= {f"engines/{flavour}/{name}": text for name, text in _engines(laid_out, keys, root).items()}
    files |= _overlays(found[main], list(found), main)
    files["production-stack/values.yaml"] = HEADER + plain_yaml(production_stack.values(found[main]))
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
        "gateway.yaml": gateway.objects(cluster),
        "controller.yaml": own_services.controller(cluster),
        "webui.yaml": own_services.webui(cluster),
        "network.yaml": network.base(cluster),
    }
    # nginx's own files come as ConfigMaps from beside them: a kustomization may read no file above itself.
    resources = [*parts, f"../{root}/nginx"]
    return {f"base/{name}": objects(documents) for name, documents in parts.items()} | {
        "base/kustomization.yaml": kustomization(resources=resources)
    }


def _engines(cluster: PlacedCluster, keys: ApiKeys, root: str) -> dict[str, str]:
    parts = {"pools.yaml": pools(cluster)}
    if storage := models.storage(cluster):
        parts["models.yaml"] = storage
    if ways_out := network.of_flavour(cluster):
        parts["network.yaml"] = ways_out
    rendered = gateway.files(cluster, keys)
    maps = [
        {"name": gateway.FILES, "files": [f"gateway/{name}" for name in sorted(rendered)], "options": UNHASHED},
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
    """Each needs CustomResourceDefinitions, or an adapter, that a bare cluster does not have."""
    return {
        "monitoring/monitors.yaml": objects(monitoring.objects(cluster)),
        "monitoring/kustomization.yaml": kustomization(
            component=True, resources=["monitors.yaml", f"../{root}/monitoring/grafana"]
        ),
        "keda/scaled-objects.yaml": objects(autoscaling.scaled_objects(cluster)),
        "keda/kustomization.yaml": kustomization(
            component=True, resources=["scaled-objects.yaml"], patches=_replicas_are_free(cluster)
        ),
        "hpa/autoscalers.yaml": objects(autoscaling.autoscalers(cluster)),
        "hpa/kustomization.yaml": kustomization(
            component=True, resources=["autoscalers.yaml"], patches=_replicas_are_free(cluster)
        ),
        "hpa/prometheus-adapter-values.yaml": HEADER + plain_yaml(autoscaling.adapter_rules()),
        "route/route.yaml": objects([http_route(cluster)]),
        "route/kustomization.yaml": kustomization(component=True, resources=["route.yaml"]),
    }


def _replicas_are_free(cluster: PlacedCluster) -> list[Json]:
    """Whatever counts pods must not be overruled by the next apply."""
    return [
        {
            "target": {"kind": "Deployment", "name": shape.name},
            "patch": plain_yaml([{"op": "remove", "path": "/spec/replicas"}]),
        }
        for shape in uniform_pools(cluster)
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
            patches=[_gateways_apart(), *([_shared_volume()] if main != "emulated" else [])],
        ),
    }
    for flavour in ("cpu", "emulated"):
        if flavour in engines:
            overlays[flavour] = kustomization(namespace=namespace, resources=engines[flavour], patches=[_one_gateway()])
    return {f"overlays/{name}/kustomization.yaml": text for name, text in overlays.items()}


def _one_gateway() -> Json:
    return _patch("Deployment", "gateway", [{"op": "replace", "path": "/spec/replicas", "value": 1}])


def _gateways_apart() -> Json:
    path = "/spec/template/spec/topologySpreadConstraints/0/whenUnsatisfiable"
    return _patch("Deployment", "gateway", [{"op": "replace", "path": path, "value": "DoNotSchedule"}])


def _shared_volume() -> Json:
    """Engines on several nodes read the same weights."""
    return _patch(
        "PersistentVolumeClaim", "models", [{"op": "replace", "path": "/spec/accessModes", "value": ["ReadWriteMany"]}]
    )


def _patch(kind: str, name: str, operations: list[Json]) -> Json:
    return {"target": {"kind": kind, "name": name}, "patch": plain_yaml(operations)}
