"""The registry through the gateway: every call wants the admin key there, and none reaches it where it is not published."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from manyeyes.devcluster.cluster import LocalCluster, local_cluster
from tests.integration.documents import ADMIN_KEY, document, with_admin_key
from tests.integration.registry_client import AUTHORIZED, refusal

POOLS = document({"big": ["big-0", "big-1"]})


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with local_cluster(with_admin_key(tmp_path_factory.mktemp("local_cluster")), POOLS) as running:
        running.answers_from("big", {"big-0", "big-1"})
        yield running


def outside(running: LocalCluster, method: str, path: str, **more: Any) -> httpx.Response:
    return running.client.request(method, f"{running.url}{path}", **more)


@pytest.mark.parametrize("path", ["/api/engines", "/api/models", "/api/events", "/api/docs", "/api/openapi.json"])
def test_also_reading_wants_the_admin_key_and_a_browser_may_give_it_as_a_password(
    cluster: LocalCluster, path: str
) -> None:
    reply = outside(cluster, "GET", path)
    assert refusal(reply) == (401, "missing_admin_key")
    assert reply.headers["WWW-Authenticate"].startswith("Basic realm=")
    assert refusal(outside(cluster, "GET", path, headers={"Authorization": "Bearer nothing-of-the-kind"})) == (
        401,
        "wrong_admin_key",
    )
    assert outside(cluster, "GET", path, headers=AUTHORIZED).status_code == 200
    assert outside(cluster, "GET", path, auth=("anybody", ADMIN_KEY)).status_code == 200


def test_the_page_of_calls_loads_its_own_files_and_nothing_from_elsewhere(cluster: LocalCluster) -> None:
    page = outside(cluster, "GET", "/api/docs", headers=AUTHORIZED).text
    found = re.findall(r"""(?:src|href|url)["']?[=:] ?["']([^"']+)""", page)
    assert any(link.endswith("swagger-ui-bundle.js") for link in found), page
    for link in found:
        assert link.startswith("/api/"), link
        assert outside(cluster, "GET", link, headers=AUTHORIZED).status_code == 200


@pytest.mark.parametrize("mark", ["", "0", "no"])
def test_a_client_cannot_pass_for_one_inside(cluster: LocalCluster, mark: str) -> None:
    for name in ("X-ManyEyes-Outside", "X_ManyEyes_Outside", "x-manyeyes-outside"):
        assert refusal(outside(cluster, "GET", "/api/engines", headers={name: mark})) == (401, "missing_admin_key")


def test_a_change_from_outside_works_with_the_key_and_not_with_a_browsers_password(cluster: LocalCluster) -> None:
    assert outside(cluster, "POST", "/api/engines/big-0/drain", headers=AUTHORIZED).json()["state"] == "draining"
    assert refusal(outside(cluster, "POST", "/api/engines/big-0/resume", auth=("x", ADMIN_KEY))) == (
        401,
        "missing_admin_key",
    )
    assert outside(cluster, "POST", "/api/engines/big-0/resume", headers=AUTHORIZED).json()["state"] == "up"


def test_of_the_controllers_paths_only_those_under_api_are_reached(cluster: LocalCluster) -> None:
    for path in ("/metrics", "/sd", "/status", "/live", "/docs", "/api/../metrics", "/api/%2e%2e/metrics"):
        assert outside(cluster, "GET", path, headers=AUTHORIZED).text[:200].count("manyeyes_") == 0


def test_a_large_body_and_an_unknown_path_are_told_in_openais_form(cluster: LocalCluster) -> None:
    headers = AUTHORIZED | {"Content-Type": "application/json"}
    assert refusal(outside(cluster, "POST", "/api/engines", headers=headers, content=b"x" * (2 << 20))) == (
        413,
        "request_too_large",
    )
    assert refusal(outside(cluster, "GET", "/api/nowhere", headers=AUTHORIZED)) == (404, "not_found")


def test_calls_are_no_requests_to_a_model(cluster: LocalCluster) -> None:
    outside(cluster, "GET", "/api/models", headers=AUTHORIZED)
    cluster.ask("big")
    assert "/api/models" not in cluster.log("access")
    metrics = cluster.client.get(f"http://127.0.0.1:{cluster.ports['controller']}/metrics").text
    assert "/api/" not in metrics


def test_while_the_controller_is_away_that_is_said_and_models_answer(cluster: LocalCluster) -> None:
    cluster.kill("controller")
    try:
        assert refusal(outside(cluster, "GET", "/api/engines", headers=AUTHORIZED)) == (503, "no_controller")
        assert cluster.ask("big").status_code == 200
    finally:
        cluster.start_controller()
        cluster.all_up({"big-0", "big-1"})


def test_where_it_is_not_published_nothing_of_it_is_there(tmp_path: Path) -> None:
    closed = {"expose_api": False, "probe_interval_s": 0.5}
    with local_cluster(with_admin_key(tmp_path), POOLS | {"controller": closed}) as running:
        running.all_up({"big-0", "big-1"})
        for method, path in (("GET", "/api/engines"), ("POST", "/api/engines/big-0/drain"), ("GET", "/api/docs")):
            assert refusal(outside(running, method, path, headers=AUTHORIZED)) == (404, "not_found")
        inside = f"http://127.0.0.1:{running.ports['controller']}/api/engines/big-0/drain"
        assert running.client.post(inside, headers=AUTHORIZED).status_code == 200
