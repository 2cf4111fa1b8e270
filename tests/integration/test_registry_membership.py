"""Registered engines and pools behind the real nginx: without another file where that can be, under load, from elsewhere."""

import shutil
from pathlib import Path

from manyeyes.devcluster.cluster import LocalCluster, local_cluster
from manyeyes.devcluster.eventually import eventually
from manyeyes.devcluster.ports import free_port
from tests.integration.certificate import certificate
from tests.integration.documents import document, with_admin_key
from tests.integration.membership import grows, users
from tests.integration.registry_client import call, controller_answers, register, serve
from tests.integration.scripted_engine import answers, endpoint


def rendered(running: LocalCluster) -> dict[str, str]:
    """What nginx runs on."""
    taken = running.folder / "nginx/tmp/gateway/current/rendered"
    return {str(file): file.read_text() for file in taken.iterdir()}


def test_an_engine_of_another_capacity_is_used_without_another_file_for_the_gateway(tmp_path: Path) -> None:
    # Two capacities, so nginx knows the pool's members by a name for each of them.
    pools = document({"big": ["big-0", "big-1"]})
    for engine, gpu_memory_gb in zip(pools["engines"], (80, 24), strict=True):
        engine["gpu_memory_gb"] = gpu_memory_gb
    with local_cluster(with_admin_key(tmp_path), pools) as running:
        running.answers_from("big", {"big-0", "big-1"})
        before = rendered(running)
        assert "c512.big.pool" in "".join(before.values())
        for name, gpu_memory_gb, capacity in (("extra-0", 48, 96), ("extra-1", 8, 96), ("extra-2", 192, 512)):
            address = serve(running, name, "big", "org/Big-VL", "auto")
            body = {"name": name, "pool": "big", "address": address, "gpu_memory_gb": gpu_memory_gb}
            reply = call(running, "POST", "/engines", json=body)
            assert (reply.status_code, reply.json()["max_in_flight"]) == (201, capacity)
        running.answers_from("big", {"big-0", "big-1", "extra-0", "extra-1", "extra-2"})
        assert rendered(running) == before


def test_engines_that_are_registered_drained_and_removed_under_load_cost_no_request(tmp_path: Path) -> None:
    with local_cluster(with_admin_key(tmp_path), document({"big": ["big-0"]})) as running:
        running.answers_from("big", {"big-0"})
        body = {"name": "extra", "model": "org/Big-VL", "address": serve(running, "extra", "big")}
        with users(running, "big") as seen:
            grows(seen, (200, "big-0"))
            assert call(running, "POST", "/engines", json=body).status_code == 201
            grows(seen, (200, "extra"))
            assert call(running, "PATCH", "/engines/extra", json={"weight": 9}).status_code == 200
            call(running, "POST", "/engines/big-0/drain")
            grows(seen, (200, "extra"), by=100)
            call(running, "POST", "/engines/big-0/resume")
            grows(seen, (200, "big-0"))
            assert call(running, "DELETE", "/engines/extra").status_code == 200
            grows(seen, (200, "big-0"), by=100)
        assert set(seen) == {(200, "big-0"), (200, "extra")}, seen


def test_a_registered_engine_is_used_again_after_the_controller_was_killed(tmp_path: Path) -> None:
    with local_cluster(with_admin_key(tmp_path), document({"big": ["late-0"]})) as running:
        controller_answers(running)
        register(running, "extra", address=serve(running, "extra", "big"))
        running.answers_from("big", {"extra"})
        running.kill("controller")
        running.start_controller()
        controller_answers(running)
        running.answers_from("big", {"extra"})


def test_a_pool_registered_by_api_answers_through_the_gateway_once_an_engine_of_it_is_up(tmp_path: Path) -> None:
    with local_cluster(with_admin_key(tmp_path), document({"big": ["big-0"]})) as running:
        running.answers_from("big", {"big-0"})
        pool = {"name": "extra", "model": "org/Extra-VL", "aliases": ["more"], "fallback": "big"}
        assert call(running, "POST", "/pools", json=pool).status_code == 201
        register(running, "extra-0", "extra", serve(running, "extra-0", "extra"))
        eventually(lambda: call(running, "GET", "/pools/extra", {}).json()["up"] == 1, 20)
        running.answers_from("more", {"extra-0"}, within_s=5)


def test_a_remote_pool_registered_by_api_answers_through_the_gateway(tmp_path: Path) -> None:
    crt, key = certificate(tmp_path)
    shutil.copy(crt, with_admin_key(tmp_path) / "secrets/cloud.crt")
    (tmp_path / "secrets/cloud.key").write_text("sk-of-the-cloud\n")
    port = free_port()
    with (
        endpoint(port, answers(), (crt, key)) as cloud,
        local_cluster(tmp_path, document({"big": ["big-0"]})) as running,
    ):
        running.answers_from("big", {"big-0"})
        remote = {"url": f"https://127.0.0.1:{port}/v1", "key_file": "cloud.key", "ca_file": "cloud.crt"}
        reply = call(running, "POST", "/pools", json={"name": "cloud", "model": "vendor-vl", "remote": remote})
        assert reply.status_code == 201, reply.text
        eventually(lambda: running.ask("cloud").status_code == 200, 5)
        assert cloud.asked[-1].headers["Authorization"] == "Bearer sk-of-the-cloud"
        assert cloud.asked[-1].json["model"] == "vendor-vl"
