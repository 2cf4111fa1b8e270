"""What every overlay comes to: built by kubectl's kustomize, checked against the schemas of Kubernetes and of the operators."""

import os
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.kubernetes import crd_schemas
from tests.kubernetes.kustomize_build import (
    OVERLAYS,
    ROOT,
    Json,
    built,
    containers,
    kubectl,
    of_kind,
    overlay,
    pods,
    written,
)

OLDEST, NEWEST = "1.34", kubernetes_validate.latest_version()
Invalid = (AssertionError, ValueError, kubernetes_validate.ValidationError)
PLAIN = [name for name in OVERLAYS if name != "many-nodes"]


def valid(one: Json, version: str = NEWEST) -> None:
    """Raises one of Invalid."""
    if crd_schemas.knows(one):
        crd_schemas.check(one)
    else:
        kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.parametrize("name", OVERLAYS)
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_object_of_an_overlay_is_valid_for_kubernetes(name: str, version: str) -> None:
    for one in overlay(name):
        if not crd_schemas.knows(one):
            valid(one, version)


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_object_for_an_operator_has_only_fields_that_it_knows(name: str) -> None:
    for one in overlay(name):
        if crd_schemas.knows(one):
            crd_schemas.check(one)


def test_the_checks_refuse_a_field_that_does_not_exist() -> None:
    objects = overlay("many-nodes")
    for kind in ("Deployment", "ScaledObject", "PodMonitor", "HTTPRoute"):
        one = yaml.safe_load(yaml.safe_dump(of_kind(objects, kind)[0]))
        one["spec"]["replcas"] = 1
        with pytest.raises(Invalid):
            valid(one)


@pytest.mark.parametrize("name", PLAIN)
def test_a_bare_cluster_needs_no_custom_resource_definitions(name: str) -> None:
    assert not [one["kind"] for one in overlay(name) if crd_schemas.knows(one)]


def test_a_plain_autoscaler_can_take_kedas_place(tmp_path: Path) -> None:
    inside = ROOT / "build/kubernetes/with-hpa"  # kustomize reads nothing outside of the repository's own folders
    inside.mkdir(parents=True, exist_ok=True)
    (inside / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "resources": [os.path.relpath(written() / "overlays/one-node", inside)],
                "components": [os.path.relpath(written() / "hpa", inside)],
            }
        )
    )
    objects = built(inside)
    scaled = of_kind(objects, "HorizontalPodAutoscaler")
    assert [one["spec"]["scaleTargetRef"]["name"] for one in scaled] == ["qwen3-vl-4b", "qwen3-vl-8b"]
    for one in scaled:
        valid(one)
    for one in of_kind(objects, "Deployment"):
        assert ("replicas" in one["spec"]) is (not one["metadata"]["name"].startswith("qwen3")), "nobody else counts"


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_pod_is_what_pod_security_calls_restricted(name: str) -> None:
    """kubernetes.io/docs/concepts/security/pod-security-standards, and a root that cannot be written."""
    objects = overlay(name)
    (namespace,) = of_kind(objects, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    allowed = {"name", "configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
    for pod in pods(objects).values():
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert all(set(volume) <= allowed for volume in pod["volumes"])
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in containers(pod):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["readOnlyRootFilesystem"]
            assert all("hostPort" not in port for port in container.get("ports", []))


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_container_has_a_memory_limit_and_every_server_its_probes(name: str) -> None:
    for maker, pod in pods(overlay(name)).items():
        for container in containers(pod):
            assert container["resources"]["limits"]["memory"], maker
            assert container["resources"]["requests"]["cpu"], maker
        if not maker.startswith("models"):
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= pod["containers"][0].keys(), maker


@pytest.mark.parametrize("name", OVERLAYS)
def test_whatever_a_pod_mounts_is_there_or_optional(name: str) -> None:
    objects = overlay(name)
    there = {(one["kind"], one["metadata"]["name"]) for one in objects}
    for pod in pods(objects).values():
        for volume in pod["volumes"]:
            projected = [one["configMap"] for one in volume.get("projected", {}).get("sources", [])]
            for source in [volume["configMap"]] if "configMap" in volume else projected:
                (found,) = [one for one in of_kind(objects, "ConfigMap") if one["metadata"]["name"] == source["name"]]
                assert {item["key"] for item in source.get("items", [])} <= found["data"].keys()
            if source := volume.get("persistentVolumeClaim"):
                assert ("PersistentVolumeClaim", source["claimName"]) in there
            if source := volume.get("secret"):
                assert source["optional"]
        mounted = {mount["name"] for container in containers(pod) for mount in container.get("volumeMounts", [])}
        assert mounted == {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_service_finds_pods_and_its_port(name: str) -> None:
    objects = overlay(name)
    made = of_kind(objects, "Deployment")
    for service in of_kind(objects, "Service"):
        wanted = service["spec"]["selector"].items()
        behind = [
            one["spec"]["template"] for one in made if wanted <= one["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert behind, service["metadata"]["name"]
        for template in behind:
            ports = {
                port["name"] for container in template["spec"]["containers"] for port in container.get("ports", [])
            }
            assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_a_pool_is_a_headless_service_whose_port_is_called_http() -> None:
    for service in of_kind(overlay("one-node"), "Service"):
        if service["metadata"]["labels"].get("manyeyes.pool"):
            assert service["spec"]["clusterIP"] == "None"
            assert service["spec"]["ports"] == [{"name": "http", "port": 8000, "targetPort": "http"}]
            assert "publishNotReadyAddresses" not in service["spec"]


def test_nobody_leaves_a_pod_before_it_may_finish() -> None:
    """Kubernetes kills at the end of the grace period, the preStop hook included."""
    for maker, pod in pods(overlay("one-node")).items():
        (engine,) = [one for one in pod["containers"] if one["name"] == "engine"] or [None]
        if engine is None:
            continue
        flags = dict(flag.partition("=")[::2] for flag in engine["lifecycle"]["preStop"]["exec"]["command"][2:])
        shutdown = next(flag for flag in engine["args"] if flag.startswith("--shutdown-timeout="))
        own = int(flags["--announced-s"]) + int(flags["--finish-s"]) + int(shutdown.partition("=")[2])
        assert pod["terminationGracePeriodSeconds"] > own, maker


@pytest.mark.parametrize("name", OVERLAYS)
def test_policies_let_through_what_parts_ask_each_other_and_engines_reach_nobody(name: str) -> None:
    objects = overlay(name)
    policies = {one["metadata"]["name"]: one["spec"] for one in of_kind(objects, "NetworkPolicy")}
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for asker, asked, port in (
        ("gateway", "engine", 8000),
        ("gateway", "controller", 8081),
        ("gateway", "controller", 5140),
        ("gateway", "webui", 7860),
        ("webui", "gateway", 8079),
        ("controller", "engine", 8000),
    ):
        assert _lets(policies[asker], "egress", "to", asked, port), (asker, asked, port)
        assert _lets(policies[asked], "ingress", "from", asker, port), (asker, asked, port)
    assert not _lets(policies["engine"], "ingress", "from", "webui", 8000)
    assert "egress" not in policies["engine"]
    assert policies["dns"]["podSelector"]["matchLabels"] == {"app.kubernetes.io/part-of": "manyeyes"}


def _lets(policy: Json, way: str, side: str, component: str, port: int) -> bool:
    wanted = {"matchLabels": {"app.kubernetes.io/component": component}}
    return any(
        any(peer.get("podSelector") == wanted for peer in rule.get(side, []))
        and any(one["port"] == port for one in rule["ports"])
        for rule in policy.get(way, [])
    )


def test_nginx_accepts_nothing_else_than_on_one_host_but_resolver_and_names() -> None:
    """The files themselves are the repository's; what is rendered differs in who is asked for what name."""
    data = {one["metadata"]["name"].rsplit("-", 1)[0]: one["data"] for one in of_kind(overlay("cpu"), "ConfigMap")}
    for folder, files in (("conf.d", data["nginx-conf-d"]), ("njs", data["nginx-njs"])):
        assert files == {path.name: path.read_text() for path in (ROOT / "nginx" / folder).iterdir()}, (
            "nginx/kustomization.yaml names every file"
        )
    assert data["nginx"] == {name: (ROOT / "nginx" / name).read_text() for name in ("nginx.conf", "start.sh")}


def test_the_chosen_folder_may_be_another_one(tmp_path: Path) -> None:
    out = ROOT / "build/kubernetes/mine"
    make = ["make", "-s", "k8s", "CONFIG=config/examples/three-4090.yaml", f"OUT={out.relative_to(ROOT)}"]
    subprocess.run(make, cwd=ROOT, check=True, capture_output=True)
    run = subprocess.run(
        [kubectl(), "kustomize", out / "overlays/one-node"], capture_output=True, text=True, check=True
    )
    found = {one["metadata"]["name"]: one for one in yaml.safe_load_all(run.stdout) if one["kind"] == "Deployment"}
    gpus = [
        one["spec"]["replicas"]
        * int(one["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
        for name, one in found.items()
        if name.startswith("qwen3")
    ]
    assert sum(gpus) == 3
