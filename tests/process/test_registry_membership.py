"""Registered engines and pools behind the real nginx: without another file where that can be, under load, from elsewhere."""

import shutil
import sys
from pathlib import Path
from typing import Any

from tests.eventually import eventually
from tests.process.certificate import certificate
from tests.process.endpoint import answers, endpoint
from tests.process.stand import QUICK, Stand, free_port, stand
from tests.process.test_membership import grows, users
from tests.process.test_registry import KEY, answering, call


def with_key(folder: Path) -> Path:
    (folder / "secrets").mkdir()
    (folder / "secrets/admin.key").write_text(KEY)
    return folder


def serve(running: Stand, name: str, *names: str) -> str:
    port = running.ports.setdefault(name, free_port())
    flags = ["--host=127.0.0.1", f"--port={port}", "--served-model-name", *names, *QUICK]
    limit = '--limit-mm-per-prompt={"image":4,"video":1}'
    running.start(name, [sys.executable, "-m", "engine.emulator", *flags, limit])
    return f"127.0.0.1:{port}"


def rendered(running: Stand) -> dict[str, str]:
    """What nginx runs on."""
    taken = running.folder / "nginx/tmp/gateway/current/rendered"
    return {str(file): file.read_text() for file in taken.iterdir()}


def test_an_engine_of_another_capacity_is_used_without_another_file_for_the_gateway(tmp_path: Path) -> None:
    document: dict[str, Any] = {
        "pools": [{"name": "big", "model": "org/Big-VL"}],
        # Two capacities, so nginx knows the pool's members by a name for each of them.
        "engines": [
            {"name": "big-0", "pool": "big", "gpu_memory_gb": 80},
            {"name": "big-1", "pool": "big", "gpu_memory_gb": 24},
        ],
    }
    with stand(with_key(tmp_path), document) as running:
        running.answers_from("big", {"big-0", "big-1"})
        before = rendered(running)
        assert "c512.big.pool" in "".join(before.values())
        for name, gpu_memory_gb, capacity in (("extra-0", 48, 96), ("extra-1", 8, 96), ("extra-2", 192, 512)):
            body = {
                "name": name,
                "pool": "big",
                "address": serve(running, name, "big", "org/Big-VL", "auto"),
                "gpu_memory_gb": gpu_memory_gb,
            }
            reply = call(running, "POST", "/engines", json=body)
            assert (reply.status_code, reply.json()["max_in_flight"]) == (201, capacity)
        running.answers_from("big", {"big-0", "big-1", "extra-0", "extra-1", "extra-2"})
        assert rendered(running) == before


def test_engines_that_are_registered_drained_and_removed_under_load_cost_no_request(tmp_path: Path) -> None:
    document: dict[str, Any] = {
        "pools": [{"name": "big", "model": "org/Big-VL"}],
        "engines": [{"name": "big-0", "pool": "big"}],
    }
    with stand(with_key(tmp_path), document) as running:
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
    document: dict[str, Any] = {
        "pools": [{"name": "big", "model": "org/Big-VL"}],
        "engines": [{"name": "late-0", "pool": "big"}],
    }
    with stand(with_key(tmp_path), document) as running:
        eventually(lambda: answering(running), 20)
        body = {"name": "extra", "pool": "big", "address": serve(running, "extra", "big")}
        assert call(running, "POST", "/engines", json=body).status_code == 201
        running.answers_from("big", {"extra"})
        running.kill("controller")
        running.start_controller()
        eventually(lambda: answering(running), 20)
        running.answers_from("big", {"extra"})


def test_a_pool_registered_by_api_answers_through_the_gateway_once_an_engine_of_it_is_up(tmp_path: Path) -> None:
    document: dict[str, Any] = {
        "pools": [{"name": "big", "model": "org/Big-VL"}],
        "engines": [{"name": "big-0", "pool": "big"}],
    }
    with stand(with_key(tmp_path), document) as running:
        running.answers_from("big", {"big-0"})
        pool = {"name": "extra", "model": "org/Extra-VL", "aliases": ["more"], "fallback": "big"}
        assert call(running, "POST", "/pools", json=pool).status_code == 201
        body = {"name": "extra-0", "pool": "extra", "address": serve(running, "extra-0", "extra")}
        assert call(running, "POST", "/engines", json=body).status_code == 201
        eventually(lambda: call(running, "GET", "/pools/extra", {}).json()["up"] == 1, 20)
        running.answers_from("more", {"extra-0"}, within_s=5)


def test_a_remote_pool_registered_by_api_answers_through_the_gateway(tmp_path: Path) -> None:
    document: dict[str, Any] = {
        "pools": [{"name": "big", "model": "org/Big-VL"}],
        "engines": [{"name": "big-0", "pool": "big"}],
    }
    crt, key = certificate(tmp_path)
    shutil.copy(crt, with_key(tmp_path) / "secrets/cloud.crt")
    (tmp_path / "secrets/cloud.key").write_text("sk-of-the-cloud\n")
    port = free_port()
    with endpoint(port, answers(), (crt, key)) as cloud, stand(tmp_path, document) as running:
        running.answers_from("big", {"big-0"})
        remote = {"url": f"https://127.0.0.1:{port}/v1", "key_file": "cloud.key", "ca_file": "cloud.crt"}
        reply = call(running, "POST", "/pools", json={"name": "cloud", "model": "vendor-vl", "remote": remote})
        assert reply.status_code == 201, reply.text
        eventually(lambda: running.ask("cloud").status_code == 200, 5)
        assert cloud.asked[-1].headers["Authorization"] == "Bearer sk-of-the-cloud"
        assert cloud.asked[-1].json["model"] == "vendor-vl"
