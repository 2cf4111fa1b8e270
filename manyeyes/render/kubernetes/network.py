"""NetworkPolicies: a pod accepts and opens only the connections listed here.

any client -> gateway -> engines, controller, page     engines -> none
page -> gateway, controller                            controller -> engines
Prometheus -> metrics                                  the download -> the hub
"""

from manyeyes.config.engines import ENGINE_PORT
from manyeyes.config.placement import PlacedCluster
from manyeyes.render.kubernetes import own_services
from manyeyes.render.kubernetes.own_services import COUNTERS, INSIDE, PAGE, PUBLIC
from manyeyes.render.kubernetes.pod_spec import PART_OF, Json, component, kubernetes_object

DNS_NAMESPACE = "kube-system"
PRIVATE_NETWORKS = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "127.0.0.0/8"]
"""Private networks, and the link-local addresses of cloud metadata services."""


def base(cluster: PlacedCluster) -> list[Json]:
    """Policies that are the same for every flavour."""
    metrics = _namespace(cluster.kubernetes.monitoring_namespace)
    return [
        _policy("default-deny", {}, ["Ingress", "Egress"]),
        _policy(
            "dns",
            {"matchLabels": PART_OF},
            ["Egress"],
            egress=[_rule("to", [_namespace(DNS_NAMESPACE)], ["53/UDP", "53"])],
        ),
        _both_ways(
            "gateway",
            ingress=[
                {"ports": _ports([str(PUBLIC)])},
                _rule("from", [_peer("webui")], [str(PAGE), str(INSIDE)]),
                _rule("from", [_peer("controller")], [str(INSIDE)]),
                _rule("from", [metrics], [str(COUNTERS)]),
            ],
            egress=[
                _rule("to", [_peer("engine")], [str(ENGINE_PORT)]),
                _rule(
                    "to",
                    [_peer("controller")],
                    [str(own_services.CONTROLLER_HTTP), f"{own_services.CONTROLLER_LOG}/UDP"],
                ),
                _rule("to", [_peer("webui")], [str(own_services.WEBUI_PORT)]),
            ],
        ),
        _both_ways(
            "controller",
            ingress=[
                _rule(
                    "from",
                    [_peer("gateway")],
                    [str(own_services.CONTROLLER_HTTP), f"{own_services.CONTROLLER_LOG}/UDP"],
                ),
                _rule("from", [_peer("webui"), metrics], [str(own_services.CONTROLLER_HTTP)]),
            ],
            egress=[_rule("to", [_peer("engine")], [str(ENGINE_PORT)])],
        ),
        _both_ways(
            "webui",
            ingress=[_rule("from", [_peer("gateway")], [str(own_services.WEBUI_PORT)])],
            egress=[
                _rule("to", [_peer("gateway")], [str(PAGE)]),
                _rule("to", [_peer("controller")], [str(own_services.CONTROLLER_HTTP)]),
            ],
        ),
        _both_ways(
            "engine",
            ingress=[_rule("from", [_peer("gateway"), _peer("controller"), metrics], [str(ENGINE_PORT)])],
        ),
    ]


def egress_policies(cluster: PlacedCluster) -> list[Json]:
    """Egress that this configuration requires."""
    policies = []
    if any(engine.flavour != "emulated" for engine in cluster.started_engines) and not cluster.models.offline:
        policies.append(_policy("models-to-the-hub", _pods("models"), ["Egress"], egress=[_outside(["443"])]))
    if ports := sorted({str(pool.remote.port) for pool in cluster.served_pools if pool.remote}):
        policies.append(_policy("gateway-to-pools-elsewhere", _pods("gateway"), ["Egress"], egress=[_outside(ports)]))
    served = {engine.pool for engine in cluster.started_engines}
    for pool in cluster.pools:
        if pool.name in served and pool.media.allowed_domains:
            # NetworkPolicies match addresses, not names. The engine checks the host name.
            selector = {"matchLabels": {"manyeyes.pool": pool.name}}
            policies.append(_policy(f"media-of-{pool.name}", selector, ["Egress"], egress=[_outside(["80", "443"])]))
    return policies


def _policy(
    name: str, selector: Json, kinds: list[str], ingress: list[Json] | None = None, egress: list[Json] | None = None
) -> Json:
    spec: Json = {"podSelector": selector, "policyTypes": kinds}
    if ingress:
        spec["ingress"] = ingress
    if egress:
        spec["egress"] = egress
    return kubernetes_object("NetworkPolicy", name, spec, version="networking.k8s.io/v1")


def _both_ways(component: str, ingress: list[Json], egress: list[Json] | None = None) -> Json:
    return _policy(component, _pods(component), ["Ingress", "Egress"], ingress, egress)


def _rule(side: str, peers: list[Json], ports: list[str]) -> Json:
    return {side: peers, "ports": _ports(ports)}


def _ports(ports: list[str]) -> list[Json]:
    """Port entries from strings such as "53/UDP" and "8080"."""
    return [
        {"protocol": kind or "TCP", "port": int(number)} for number, _, kind in (port.partition("/") for port in ports)
    ]


def _pods(name: str) -> Json:
    return {"matchLabels": component(name)}


def _peer(name: str) -> Json:
    return {"podSelector": _pods(name)}


def _namespace(name: str) -> Json:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def _outside(ports: list[str]) -> Json:
    return _rule("to", [{"ipBlock": {"cidr": "0.0.0.0/0", "except": PRIVATE_NETWORKS}}], ports)
