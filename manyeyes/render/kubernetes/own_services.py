"""The gateway, the controller and the web page on Kubernetes.

The gateway is stock nginx with the files of nginx/ and its rendered files, both from ConfigMaps. The controller reports
which engines are up and counts requests; the Services decide the members of a pool. The page is at / of the gateway.
"""

from typing import Any

from manyeyes.config.checkout import PAGE_KEY
from manyeyes.config.credentials import ApiKeys
from manyeyes.config.engines import ENGINE_PORT
from manyeyes.config.placement import PlacedCluster
from manyeyes.render.kubernetes.pod_spec import (
    GATEWAY_USER,
    OWN_USER,
    Json,
    component,
    deployment,
    disruption_budget,
    empty_dir,
    environment,
    kubernetes_object,
    labels,
    pod,
    restricted_security,
    spread_over_nodes,
)
from manyeyes.render.nginx.files import build_generation, gateway_files
from manyeyes.render.nginx.naming import NginxPaths

PUBLIC, PAGE, INSIDE, COUNTERS = 8080, 8079, 8088, 9113
UNANNOUNCED_S = 10
"""Load balancers may send new connections to a gateway for this long after its removal."""
GATEWAY_FILES = "gateway-files"


def nginx_paths(cluster: PlacedCluster) -> NginxPaths:
    """Addresses for the rendered files: Services instead of fixed addresses."""
    settings = cluster.kubernetes
    services = f"{settings.namespace}.svc.{settings.cluster_domain}"
    return NginxPaths(
        controller=f"controller.{services}",
        resolver=settings.dns,
        outside_resolver=settings.dns,
        members_of=f"{{}}.{services}:{ENGINE_PORT}",
        service_suffix=f".{services}",
    )


def generation_files(cluster: PlacedCluster, keys: ApiKeys, paths: NginxPaths | None = None) -> dict[str, str]:
    """One generation of files, in one ConfigMap. nginx/start.sh applies a change with one reload."""
    return build_generation(gateway_files(cluster, keys, paths or nginx_paths(cluster)))[1]


def gateway(cluster: PlacedCluster) -> list[Json]:
    pods = pod(
        GATEWAY_USER,
        terminationGracePeriodSeconds=UNANNOUNCED_S + cluster.shutdown.finish_s + 5,
        topologySpreadConstraints=spread_over_nodes(component("gateway")),
        containers=[_nginx(cluster), _exporter(cluster)],
        volumes=_volumes(),
    )
    # A new pod is ready before an old pod stops: gateways need no GPU.
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    selector, object_labels = component("gateway"), labels("gateway")
    return [
        deployment("gateway", cluster.kubernetes.gateways, selector, pods, object_labels, strategy=strategy),
        *_services(cluster),
        disruption_budget("gateway", selector, object_labels),
    ]


def _nginx(cluster: PlacedCluster) -> Json:
    probe = {"httpGet": {"path": "/live", "port": "inside"}, "timeoutSeconds": 3, "failureThreshold": 3}
    return {
        "name": "nginx",
        "image": cluster.images.nginx,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "/etc/nginx/start.sh"],
        "envFrom": [{"configMapRef": {"name": "nginx-malloc"}}],
        "ports": [
            {"name": "http", "containerPort": PUBLIC},
            {"name": "page", "containerPort": PAGE},
            {"name": "inside", "containerPort": INSIDE},
        ],
        "resources": {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"memory": "3Gi"}},
        "securityContext": restricted_security(),
        "startupProbe": probe | {"periodSeconds": 1, "failureThreshold": 120},
        "readinessProbe": probe | {"periodSeconds": 5},
        "livenessProbe": probe | {"periodSeconds": 10},
        # Process 1 is nginx's master (start.sh executes it). QUIT lets running answers finish; then the container and
        # this hook exit.
        "lifecycle": {
            "preStop": {
                "exec": {
                    "command": [
                        "/bin/sh",
                        "-c",
                        f"sleep {UNANNOUNCED_S}; kill -QUIT 1; while kill -0 1; do sleep 1; done",
                    ]
                }
            }
        },
        "volumeMounts": [
            {"name": "nginx", "mountPath": "/etc/nginx/nginx.conf", "subPath": "nginx.conf", "readOnly": True},
            {"name": "nginx", "mountPath": "/etc/nginx/start.sh", "subPath": "start.sh", "readOnly": True},
            {"name": "conf-d", "mountPath": "/etc/nginx/conf.d", "readOnly": True},
            {"name": "njs", "mountPath": "/etc/nginx/njs", "readOnly": True},
            {"name": "offered", "mountPath": "/etc/nginx/offered/current", "readOnly": True},
            {"name": "secrets", "mountPath": "/run/secrets/manyeyes", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "cache", "mountPath": "/var/cache/nginx"},
        ],
    }


def _exporter(cluster: PlacedCluster) -> Json:
    return {
        "name": "counters",
        "image": cluster.images.nginx_exporter,
        "imagePullPolicy": "IfNotPresent",
        "args": [f"--nginx.scrape-uri=http://127.0.0.1:{INSIDE}/stub_status"],
        "ports": [{"name": "counters", "containerPort": COUNTERS}],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}},
        "securityContext": restricted_security(),
    }


def _volumes() -> list[Json]:
    return [
        {"name": "nginx", "configMap": {"name": "nginx"}},
        {"name": "conf-d", "configMap": {"name": "nginx-conf-d"}},
        {"name": "njs", "configMap": {"name": "nginx-njs"}},
        {"name": "offered", "configMap": {"name": GATEWAY_FILES}},
        _secrets_volume(),
        empty_dir("tmp", 4),
        empty_dir("cache", 0.125),
    ]


def _secrets_volume(**settings: Any) -> Json:
    """The certificate, the keys of remote endpoints and the page's key: `kubectl create secret generic manyeyes
    --from-file=secrets/`."""
    return {
        "name": "secrets",
        "secret": {"secretName": "manyeyes", "optional": True, "defaultMode": 0o440} | settings,
    }


def _services(cluster: PlacedCluster) -> list[Json]:
    """The Service for clients, an Ingress or the HTTPRoute, and the Service for the page, which requires no key."""
    public = {
        "type": "ClusterIP",
        "selector": component("gateway"),
        # Each gateway stores only the conversations that it served.
        "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": min(86_400, cluster.gateway.conversation_timeout_s)}},
        "ports": [{"name": "http", "port": PUBLIC, "targetPort": "http"}],
    }
    inside = {
        "selector": component("gateway"),
        "ports": [
            {"name": "page", "port": PAGE, "targetPort": "page"},
            {"name": "inside", "port": INSIDE, "targetPort": "inside"},
        ],
    }
    return [
        kubernetes_object("Service", "gateway", public, object_labels=labels("gateway")),
        kubernetes_object("Service", "gateway-inside", inside, object_labels=labels("gateway")),
    ]


def http_route(cluster: PlacedCluster) -> Json:
    settings = cluster.kubernetes
    spec: Json = {
        "parentRefs": [{"name": settings.route_parent, "namespace": settings.route_parent_namespace}],
        "rules": [
            {
                "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                "backendRefs": [{"name": "gateway", "port": PUBLIC}],
                # No timeout: an answer may stream for minutes, and nginx has timeouts.
                "timeouts": {"request": "0s", "backendRequest": "0s"},
            }
        ],
    }
    if settings.hostnames:
        spec["hostnames"] = list(settings.hostnames)
    return kubernetes_object("HTTPRoute", "gateway", spec, version="gateway.networking.k8s.io/v1")


CONTROLLER_HTTP, CONTROLLER_LOG = 8081, 5140
WEBUI_PORT = 7860
CONFIG = "cluster-config"


def controller(cluster: PlacedCluster) -> list[Json]:
    probe = {"httpGet": {"path": "/live", "port": "http"}, "timeoutSeconds": 5, "failureThreshold": 3}
    container = {
        "name": "controller",
        "image": cluster.images.controller,
        "imagePullPolicy": "IfNotPresent",
        "env": environment(
            {
                "MANYEYES_CONFIG": "/config/cluster.yaml",
                "MANYEYES_INVENTORY": "/config/inventory.yaml",
                "MANYEYES_STATE": "/state",
                "MANYEYES_SERVICES": nginx_paths(cluster).members_of,
            }
        ),
        "ports": [
            {"name": "http", "containerPort": CONTROLLER_HTTP},
            {"name": "log", "containerPort": CONTROLLER_LOG, "protocol": "UDP"},
        ],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": restricted_security(),
        "startupProbe": probe | {"periodSeconds": 1, "failureThreshold": 60},
        "readinessProbe": probe | {"periodSeconds": 5},
        "livenessProbe": probe | {"periodSeconds": 30},
        "volumeMounts": [
            {"name": "config", "mountPath": "/config", "readOnly": True},
            {"name": "state", "mountPath": "/state"},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    ports = [
        {"name": "http", "port": CONTROLLER_HTTP, "targetPort": "http"},
        {"name": "log", "port": CONTROLLER_LOG, "targetPort": "log", "protocol": "UDP"},
    ]
    # One pod, because it counts requests, and two would each count a part. The gateway serves requests while it is
    # down.
    return _single_copy("controller", container, [empty_dir("state", 0.25), empty_dir("tmp", 0.0625)], ports)


def webui(cluster: PlacedCluster) -> list[Json]:
    probe = {"exec": {"command": ["python", "-m", "webui.healthcheck"]}, "timeoutSeconds": 10, "failureThreshold": 3}
    container = {
        "name": "webui",
        "image": cluster.images.webui,
        "imagePullPolicy": "IfNotPresent",
        "env": environment(
            {
                "MANYEYES_GATEWAY_URL": f"http://gateway-inside:{PAGE}",
                "MANYEYES_CONFIG": "/config/cluster.yaml",
                "MANYEYES_PAGE_KEY_FILE": "/run/secrets/manyeyes/page.key",
                "MANYEYES_STATE": "/tmp/state",
                "HOME": "/tmp",
            }
        ),
        "ports": [{"name": "http", "containerPort": WEBUI_PORT}],
        "resources": {"requests": {"cpu": "200m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}},
        "securityContext": restricted_security(),
        "startupProbe": probe | {"periodSeconds": 3, "failureThreshold": 60},
        "readinessProbe": probe | {"periodSeconds": 30},
        "livenessProbe": probe | {"periodSeconds": 60},
        "volumeMounts": [
            {"name": "config", "mountPath": "/config", "readOnly": True},
            {"name": "secrets", "mountPath": "/run/secrets/manyeyes", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    # Of the gateway's secrets, the page gets only its key.
    page_key = _secrets_volume(items=[{"key": PAGE_KEY, "path": PAGE_KEY}])
    # Files that users uploaded are in its /tmp.
    ports = [{"name": "http", "port": WEBUI_PORT, "targetPort": "http"}]
    return _single_copy("webui", container, [page_key, empty_dir("tmp", 2)], ports)


def _single_copy(name: str, container: Json, volumes: list[Json], ports: list[Json]) -> list[Json]:
    """A Deployment with one pod that mounts the cluster's configuration, and its Service."""
    spec = pod(
        OWN_USER,
        terminationGracePeriodSeconds=10,
        containers=[container],
        volumes=[{"name": "config", "configMap": {"name": CONFIG}}, *volumes],
    )
    service = {"selector": component(name), "ports": ports}
    return [
        deployment(name, 1, component(name), spec, labels(name), strategy={"type": "Recreate"}),
        kubernetes_object("Service", name, service, object_labels=labels(name)),
    ]
