"""The Gateway API's way in: an HTTPRoute to the gateway."""

from manyeyes.config.cluster import Cluster
from manyeyes.render.kubernetes.gateway import PUBLIC
from manyeyes.render.kubernetes.pod_spec import thing
from manyeyes.render.kubernetes.yaml_dump import Json


def http_route(cluster: Cluster) -> Json:
    settings = cluster.kubernetes
    spec: Json = {
        "parentRefs": [{"name": settings.route_parent, "namespace": settings.route_parent_namespace}],
        "rules": [
            {
                "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                "backendRefs": [{"name": "gateway", "port": PUBLIC}],
                # None: an answer may stream for minutes, and nginx has its own deadlines.
                "timeouts": {"request": "0s", "backendRequest": "0s"},
            }
        ],
    }
    if settings.hostnames:
        spec["hostnames"] = list(settings.hostnames)
    return thing("HTTPRoute", "gateway", spec, version="gateway.networking.k8s.io/v1")
