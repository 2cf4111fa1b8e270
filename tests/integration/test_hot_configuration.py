"""The configuration is changed while the cluster runs: what is right is in force within seconds, what is wrong changes nothing."""

import copy
import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from manyeyes.config.loader import fingerprint_of_file
from manyeyes.devcluster.chat_load import chat_load
from manyeyes.devcluster.cluster import LocalCluster, local_cluster
from manyeyes.devcluster.eventually import eventually
from manyeyes.devcluster.ports import free_port
from manyeyes.render.nginx.files import build_generation
from tests.integration import documents
from tests.integration.certificate import certificate
from tests.integration.membership import controller, sentences

SOON_S = 20
"""Asked for are seconds; the machine is shared."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    with local_cluster(tmp_path, documents.document({"big": ["big-0", "big-1"], "small": ["small-0"]})) as running:
        running.answers_from("big", {"big-0", "big-1"})
        running.answers_from("small", {"small-0"})
        yield running


def changed(running: LocalCluster) -> dict[str, Any]:
    return copy.deepcopy(running.document)


def code(reply: httpx.Response) -> str:
    return str(reply.json()["error"]["code"])


def metric(running: LocalCluster, name: str) -> float:
    text = controller(running, "/metrics").text
    return sum(
        float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))
    )


def steadily(check: Callable[[], bool], what: str) -> None:
    """Waits until `check` holds five times in a row: for a moment after a reload, old workers accept connections next to new workers."""
    eventually(lambda: all(check() for _ in range(5)), SOON_S, 0.1, what)


def in_force(running: LocalCluster) -> None:
    """Waits until the file as it stands is applied and nginx runs on what it comes to."""

    def check() -> bool:
        said = running.configuration()
        assert said, "the controller does not answer"
        assert said["applied"]["digest"] == fingerprint_of_file(running.folder / "cluster.yaml"), said
        assert not said["refused"], said
        assert said["gateway"]["desired"] == said["gateway"]["active"], said
        inside = f"http://127.0.0.1:{running.ports['inside']}/generation"
        assert {running.client.get(inside).text.strip() for _ in range(5)} == {said["gateway"]["active"]}
        return True

    eventually(check, SOON_S, 0.1, "the configuration is in force")


def write_started(running: LocalCluster, engines: dict[str, str]) -> Path:
    """As Compose started them: engines by name with their pool, each of which accepts that pool's name and `auto`."""
    services = {
        name: {
            "labels": {"manyeyes.engine": name, "manyeyes.pool": pool, "manyeyes.flavour": "emulated"},
            "command": ["--served-model-name", pool, "auto", "--max-model-len=8192"],
        }
        for name, pool in engines.items()
    }
    file = running.folder / "rendered/started.yaml"
    file.write_text(yaml.safe_dump({"services": services}))
    return file


def with_engine(running: LocalCluster, document: dict[str, Any], name: str, pool: str) -> dict[str, Any]:
    """The document with one engine more, at a port of its own."""
    running.ports[name] = free_port()
    engine = {"name": name, "pool": pool, "flavour": "emulated", "address": f"127.0.0.1:{running.ports[name]}"}
    return {**document, "engines": [*document["engines"], engine]}


def with_pool(document: dict[str, Any], **pool: Any) -> dict[str, Any]:
    return {**document, "pools": [*document["pools"], pool]}


def test_an_added_pool_answers_after_one_reload_and_none_of_thirty_chatting_users_notices(
    cluster: LocalCluster,
) -> None:
    document = with_pool(changed(cluster), name="third", model="org/Third-VL")
    document = with_engine(cluster, document, "third-0", "third")
    with chat_load(cluster.url, "big") as people:
        eventually(lambda: len(people.answers) > 60, 60)
        assert code(cluster.ask("third")) == "model_not_found"
        cluster.configure(document)
        cluster.start_engine("third-0")
        steadily(lambda: cluster.ask("third").status_code == 200, "the added pool answers")
        seen = len(people.answers)
        eventually(lambda: len(people.answers) > seen + 60, 60)
    people.assert_nothing_lost(cut_on=set())
    assert people.outcomes["cut"] == 0
    in_force(cluster)
    assert cluster.reloads() == 1
    assert metric(cluster, "manyeyes_config_applied_timestamp_seconds") > 0


def test_an_added_engine_gets_requests_without_a_reload(cluster: LocalCluster) -> None:
    cluster.configure(with_engine(cluster, changed(cluster), "big-2", "big"))
    cluster.start_engine("big-2")
    cluster.answers_from("big", {"big-0", "big-1", "big-2"})
    assert cluster.reloads() == 0


def test_a_removed_pool_is_404_and_the_others_go_on(cluster: LocalCluster) -> None:
    document = changed(cluster)
    cluster.configure({"pools": document["pools"][:1], "engines": document["engines"][:2]})
    steadily(lambda: cluster.ask("small").status_code == 404, "the pool is gone")
    assert code(cluster.ask("small")) == "model_not_found"
    assert cluster.ask("big").status_code == 200
    assert [pool["name"] for pool in eventually(lambda: cluster.healthz()["pools"], 5)] == ["big"]


def test_limits_fallbacks_and_balancing_change_at_once(cluster: LocalCluster) -> None:
    document = changed(cluster)
    assert cluster.ask("big", user="x" * 3_000_000).status_code == 200
    document["gateway"] = {"max_body_mb": 1, "retry_after_s": 17}
    document["pools"][0] |= {"balancing": "round_robin"}
    cluster.configure(document)
    steadily(lambda: cluster.ask("big", user="x" * 3_000_000).status_code == 413, "the limit holds")
    document["pools"][0] |= {"balancing": "image"}
    cluster.configure(document)
    in_force(cluster)
    cluster.kill("small-0")
    eventually(lambda: cluster.ask("small").status_code == 503, 10)
    assert cluster.ask("small").headers["Retry-After"] == "17"
    document["pools"][0]["aliases"] = ["small-as-well"]
    document["pools"][1]["fallback"] = "big"
    cluster.configure(document)
    in_force(cluster)
    for name in ("big-0", "big-1"):  # engines that were started elsewhere learn names where they are started
        cluster.kill(name)
        cluster.start_engine(name)
    cluster.all_up({"big-0", "big-1"})

    def stands_in() -> bool:
        reply = cluster.ask("small")
        assert (reply.status_code, reply.headers.get("X-ManyEyes-Pool")) == (200, "big"), reply.text
        return cluster.ask("small-as-well").status_code == 200

    eventually(stands_in, 10, 0.1, "big stands in for small")  # nginx asks once a second who is up


def test_rules_of_auto_change_at_once(cluster: LocalCluster) -> None:
    assert cluster.ask("auto").headers["X-ManyEyes-Pool"] == "big"
    cluster.configure({**changed(cluster), "auto": [{"pool": "small"}]})
    steadily(lambda: cluster.ask("auto").headers["X-ManyEyes-Pool"] == "small", "auto leads elsewhere")


def test_a_name_added_while_engines_run_is_theirs_at_once(cluster: LocalCluster) -> None:
    """Engines refuse names they were not started with: until they are started anew the gateway says theirs instead."""
    document = changed(cluster)
    write_started(cluster, {engine["name"]: engine["pool"] for engine in document["engines"]})
    document["pools"][0]["aliases"] = ["default"]
    cluster.configure(document)
    steadily(lambda: cluster.ask("default").status_code == 200, "the new name is answered")
    assert cluster.ask("default").json()["model"] == "big"


@pytest.mark.parametrize("in_place", [True, False], ids=["written in place", "replaced by a rename"])
def test_every_problem_of_a_broken_file_is_told_and_the_old_one_stays_until_it_is_mended(
    cluster: LocalCluster, in_place: bool
) -> None:
    wrong = changed(cluster)
    wrong["pools"][0]["fallback"] = "nowhere"
    wrong["pools"][1]["max_model_len"] = "long"
    wrong["gateway"] = {"prot": 1}
    right = {**changed(cluster), "auto": [{"pool": "small"}]}

    def write(document: dict[str, Any]) -> None:
        if in_place:
            (cluster.folder / "cluster.yaml").write_text(yaml.safe_dump(document))
        else:
            cluster.configure(document)

    before = cluster.configuration()
    write(wrong)
    said = eventually(lambda: cluster.configuration()["refused"], SOON_S, 0.1, "the file is refused")
    file = cluster.folder / "cluster.yaml"
    assert len(said) == 3
    assert any(
        line.startswith(f"{file}: pools[big].fallback: expected the name of a pool, got 'nowhere'") for line in said
    )
    assert any(line.startswith(f"{file}: pools[small].max_model_len: expected a whole number") for line in said), said
    assert any(line.startswith(f"{file}: gateway.prot is not a setting") for line in said)
    assert {f"configuration refused: {line}" for line in said} <= set(sentences(cluster))
    assert metric(cluster, "manyeyes_config_refused") == 1
    assert metric(cluster, "manyeyes_config_refusals_total") == 1
    assert cluster.configuration()["gateway"] == before["gateway"]
    assert cluster.ask("big").status_code == 200
    write(right)
    steadily(lambda: cluster.ask("auto").headers["X-ManyEyes-Pool"] == "small", "the mended file is applied")
    in_force(cluster)
    assert metric(cluster, "manyeyes_config_refused") == 0
    assert any(line.startswith("configuration applied") for line in sentences(cluster))


def test_a_controller_that_starts_while_the_file_is_broken_goes_on_with_what_was_in_force(
    cluster: LocalCluster,
) -> None:
    in_force(cluster)
    (cluster.folder / "cluster.yaml").write_text("pools: [")
    cluster.kill("controller")
    cluster.start_controller()
    assert eventually(cluster.configuration, SOON_S)["refused"]
    cluster.all_up({"big-0", "big-1", "small-0"})
    assert cluster.reloads() == 0
    cluster.configure({**cluster.document, "auto": [{"pool": "small"}]})
    in_force(cluster)


def test_files_that_nginx_refuses_are_told_with_its_reason_and_taken_over_once_what_they_lack_is_there(
    cluster: LocalCluster,
) -> None:
    in_force(cluster)
    before = cluster.configuration()["gateway"]["active"]
    far = {"url": "https://models.example.com/v1", "ca_file": "far.crt"}
    cluster.configure(with_pool(changed(cluster), name="far", model="org/Far", remote=far))
    trouble = eventually(lambda: cluster.configuration()["gateway"]["problem"], SOON_S, 0.1, "nginx refuses")
    assert "far.crt" in trouble
    assert any(line.startswith("the gateway does not run its newest configuration") for line in sentences(cluster))
    assert '"event":"configuration_refused"' in cluster.log("nginx")
    assert cluster.configuration()["gateway"]["active"] == before
    assert metric(cluster, "manyeyes_gateway_config_outdated") == 1
    assert cluster.ask("big").status_code == 200
    # Started in this state, it starts on what it ran on.
    cluster.kill("nginx")
    cluster.restart_nginx()
    steadily(lambda: cluster.ask("big").status_code == 200, "the gateway is back")
    assert cluster.configuration()["gateway"]["active"] == before
    (cluster.folder / "secrets").mkdir(exist_ok=True)
    crt, _ = certificate(cluster.folder / "secrets")
    crt.rename(cluster.folder / "secrets/far.crt")
    in_force(cluster)
    assert metric(cluster, "manyeyes_gateway_config_outdated") == 0
    assert "the gateway runs the active configuration again" in sentences(cluster)


def test_a_new_key_works_within_seconds_and_an_emptied_file_lets_nobody_in(cluster: LocalCluster) -> None:
    def asked(secret: str) -> int:
        headers = {"Authorization": f"Bearer {secret}"}
        body = {"model": "big", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
        return cluster.client.post(f"{cluster.url}/v1/chat/completions", json=body, headers=headers).status_code

    def keys(*names: str) -> str:
        entries = [{"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest()} for name in names]
        return yaml.safe_dump({"keys": entries})

    file = cluster.folder / "api-keys.yaml"
    assert asked("alice") == 200  # while there is no key nobody needs one
    file.write_text(keys("alice"))
    steadily(lambda: asked("bob") == 401, "a key is wanted")
    assert asked("alice") == 200
    file.write_text(keys("alice", "bob"))
    steadily(lambda: asked("bob") == 200, "the new key works")
    for vanish in (lambda: file.write_text(""), file.unlink):
        vanish()
        eventually(lambda: cluster.configuration()["refused"], SOON_S, 0.1, "the file is refused")
        assert (asked("alice"), asked("mallory")) == (200, 401)
        file.write_text(keys("alice"))
        in_force(cluster)
    file.write_text("keys: []")
    steadily(lambda: asked("mallory") == 200, "nobody needs a key")


def test_a_controller_killed_between_writing_and_the_reload_loses_no_change(cluster: LocalCluster) -> None:
    in_force(cluster)
    offered = cluster.folder / "offered/current"
    before = offered.readlink()
    cluster.configure({**changed(cluster), "auto": [{"pool": "small"}]})
    eventually(lambda: offered.readlink() != before, SOON_S, 0.005, "new files are offered")
    cluster.kill("controller")
    # What a kill in the middle of writing leaves behind.
    half = cluster.folder / "offered/generations/.half.new"
    half.mkdir()
    (half / "pools.conf").write_text("upstream")
    steadily(lambda: cluster.ask("auto").headers["X-ManyEyes-Pool"] == "small", "nginx took them over")
    cluster.start_controller()
    eventually(lambda: cluster.healthz()["controller"] == "ok", SOON_S)
    cluster.configure({**cluster.document, "auto": [{"pool": "big"}]})
    steadily(lambda: cluster.ask("auto").headers["X-ManyEyes-Pool"] == "big", "changes go on")
    in_force(cluster)
    assert not half.exists()


def test_files_that_are_being_replaced_are_left_alone_until_they_are_whole(cluster: LocalCluster) -> None:
    """A folder whose files are swapped one by one, as no controller of ours does: the sums do not fit until the last is there."""
    in_force(cluster)
    cluster.kill("controller")
    current = cluster.folder / "offered/current"
    generation = current.resolve()
    current.unlink()
    shutil.copytree(generation, current)
    name, files = build_generation(
        {file.name: file.read_text() for file in current.iterdir() if not file.name.startswith("generation")}
        | {"settings.inc": "client_max_body_size 1m;\n"}
    )
    (current / "generation").write_text(files.pop("generation"))
    time.sleep(2.5)  # two looks
    assert cluster.reloads() == 0
    assert "configuration_refused" not in cluster.log("nginx")
    for file, text in files.items():
        (current / file).write_text(text)
    inside = f"http://127.0.0.1:{cluster.ports['inside']}/generation"
    eventually(lambda: cluster.client.get(inside).text.strip() == name, SOON_S, 0.1, "whole files are taken over")
