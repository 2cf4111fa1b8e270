"""Pools and engines get other names while requests come: at every instant the old name or the new one is answered, and none is lost."""

import contextlib
import copy
import itertools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import pytest

from manyeyes.devcluster.chat_load import chat_load
from manyeyes.devcluster.cluster import LocalCluster, local_cluster
from manyeyes.devcluster.eventually import eventually
from tests.integration import documents
from tests.integration.test_hot_configuration import SOON_S, in_force, write_started

CLIENTS = 4


POOLS = {"big": ["big-0", "big-1"], "small": ["small-0"], "spare": ["late-spare"]}
FALLBACKS = {"big": {"fallback": "small"}, "spare": {"fallback": "big"}}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with local_cluster(tmp_path_factory.mktemp("renaming"), documents.document(POOLS, FALLBACKS)) as made:
        made.answers_from("big", {"big-0", "big-1"})
        made.answers_from("small", {"small-0"})
        yield made


@pytest.fixture
def cluster(running: LocalCluster) -> Iterator[LocalCluster]:
    """With the names that the engines were started with."""
    document = copy.deepcopy(running.document)
    yield running
    running.configure(document)
    in_force(running)


@dataclass
class Askers:
    """What clients saw that ask by each of some names in turn, until one is answered."""

    answered: dict[str, int] = field(default_factory=dict)
    unanswered: list[str] = field(default_factory=list)
    going: bool = True

    @property
    def rounds(self) -> int:
        return sum(self.answered.values()) + len(self.unanswered)


@contextlib.contextmanager
def askers(url: str, *names: Sequence[str]) -> Iterator[Askers]:
    """Clients for each group of names. Every second round is on new connections: those meet both generations of nginx's processes."""
    seen = Askers()
    lock = threading.Lock()

    def ask(client: httpx.Client, name: str) -> str:
        body = {"model": name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
        reply = client.post(f"{url}/v1/chat/completions", json=body)
        return "" if reply.status_code == 200 else f"{name}: {reply.status_code} {reply.text[:200]}"

    def rounds(group: Sequence[str]) -> None:
        with httpx.Client(timeout=30, trust_env=False) as lasting:
            for number in itertools.count():
                if not seen.going:
                    return
                fresh = httpx.Client(timeout=30, trust_env=False) if number % 2 else contextlib.nullcontext(lasting)
                with fresh as client:
                    failures: list[str] = []
                    for name in group:
                        try:
                            failure = ask(client, name)
                        except httpx.HTTPError as error:
                            failure = f"{name}: {error!r}"
                        if not failure:
                            break
                        failures.append(failure)
                with lock:
                    if len(failures) == len(group):
                        seen.unanswered.append("; ".join(failures))
                    else:
                        name = group[len(failures)]
                        seen.answered[name] = seen.answered.get(name, 0) + 1

    threads = [
        threading.Thread(target=rounds, args=(group,)) for group in names for _ in range(max(1, CLIENTS // len(names)))
    ]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: seen.rounds > 8, 30)
        yield seen
        after = seen.rounds
        eventually(lambda: seen.rounds > after + 20, 60)
    finally:
        seen.going = False
        for thread in threads:
            thread.join(timeout=60)
    assert not seen.unanswered, (len(seen.unanswered), seen.rounds, seen.unanswered[:3])


def renamed(document: dict[str, Any], names: dict[str, str], **more: Any) -> dict[str, Any]:
    """The document with other names of pools wherever they are said, and more in it."""
    document = copy.deepcopy(document)
    for pool in document["pools"]:
        pool["name"] = names.get(pool["name"], pool["name"])
        if "fallback" in pool:
            pool["fallback"] = names.get(pool["fallback"], pool["fallback"])
    for engine in document["engines"]:
        engine["pool"] = names.get(engine["pool"], engine["pool"])
    return document | more


def listed(cluster: LocalCluster) -> set[str]:
    return {model["id"] for model in cluster.client.get(f"{cluster.url}/v1/models").json()["data"]}


def is_answered(cluster: LocalCluster, name: str) -> bool:
    return cluster.ask(name).status_code == 200


def is_in_force_with(cluster: LocalCluster, *names: str) -> None:
    in_force(cluster)
    for name in names:
        # A connection that was open before leads to the processes of nginx that have the files before.
        eventually(partial(is_answered, cluster, name), SOON_S, 0.1, f"{name} is answered")
    eventually(lambda: set(names) <= listed(cluster), 10, 0.1, f"{names} are listed")


def test_one_pool_gets_another_name_and_neither_chats_nor_conversations_notice(cluster: LocalCluster) -> None:
    before = cluster.document
    with (
        askers(cluster.url, ("big", "large"), ("large", "big")),
        chat_load(cluster.url, "org/Big-VL", users=8, turns=40) as people,
    ):
        eventually(lambda: len(people.answers) > 30, 60)
        cluster.configure(renamed(before, {"big": "large"}, auto=[{"pool": "large"}]))
        is_in_force_with(cluster, "large", "auto")
        seen = len(people.answers)
        eventually(lambda: len(people.answers) > seen + 30, 60)
    people.assert_nothing_lost(cut_on=set())
    assert people.outcomes["cut"] == 0
    assert "big" not in listed(cluster)
    # A pool whose fallback got another name: its own engine was never started.
    assert cluster.ask("spare").headers["X-ManyEyes-Pool"] == "large"
    # And back, with the new name as an alias.
    back = copy.deepcopy(before)
    back["pools"][0]["aliases"] = ["large"]
    with askers(cluster.url, ("large", "big"), ("big", "large")):
        cluster.configure(back)
        is_in_force_with(cluster, "big", "large")


def test_a_conversation_stays_on_its_engine(cluster: LocalCluster) -> None:
    chats = [[{"role": "user", "content": f"Chat {number}"}] for number in range(8)]
    engines = []
    for chat in chats:
        reply = cluster.ask("big", messages=chat)
        engines.append(reply.headers["X-ManyEyes-Engine"])
        chat += [{"role": "assistant", "content": "Yes."}, {"role": "user", "content": "And then?"}]
    assert set(engines) == {"big-0", "big-1"}
    cluster.configure(renamed(cluster.document, {"big": "large"}))
    is_in_force_with(cluster, "large")
    assert [cluster.ask("large", messages=chat).headers["X-ManyEyes-Engine"] for chat in chats] == engines


def test_all_pools_and_engines_get_other_names_together(cluster: LocalCluster) -> None:
    document = renamed(cluster.document, {"big": "large", "small": "little", "spare": "more"})
    for engine in document["engines"]:
        engine["name"] = f"new-{engine['name']}"
    with askers(cluster.url, ("big", "large"), ("small", "little"), ("more", "spare"), ("org/Spare-VL",)):
        cluster.configure(document)
        is_in_force_with(cluster, "large", "little")
    assert cluster.ask("large").headers["X-ManyEyes-Engine"] in {"new-big-0", "new-big-1"}
    # A controller that is started anew goes on in the same way.
    with askers(cluster.url, ("large",), ("little",)):
        cluster.kill("controller")
        cluster.start_controller()
        eventually(cluster.configuration, SOON_S, 0.1, "the controller answers")
        cluster.all_up({"new-big-0", "new-big-1", "new-small-0"})


def test_names_change_places(cluster: LocalCluster) -> None:
    with askers(cluster.url, ("big",), ("small",)):
        cluster.configure(renamed(cluster.document, {"big": "small", "small": "big"}))
        in_force(cluster)
        eventually(lambda: cluster.ask("big").headers["X-ManyEyes-Engine"] == "small-0", SOON_S, 0.1)
    assert {cluster.ask("small").headers["X-ManyEyes-Engine"] for _ in range(8)} == {"big-0", "big-1"}
    # One name moves on to another pool, whose own name is new.
    with askers(cluster.url, ("big",), ("small", "tiny")):
        cluster.configure(renamed(cluster.document, {"big": "tiny", "small": "big"}))
        is_in_force_with(cluster, "big", "tiny")


def test_an_engine_that_knows_only_its_old_name_is_asked_by_it(cluster: LocalCluster) -> None:
    """As one that somebody else started."""
    before = cluster.document
    cluster.kill("small-0")
    cluster.all_down({"small-0"})
    cluster.start_engine("small-0", "--served-model-name", "small")
    cluster.all_up({"small-0"})
    with askers(cluster.url, ("small", "little")):
        cluster.configure(renamed(before, {"small": "little"}))
        is_in_force_with(cluster, "little")
    assert cluster.ask("little").json()["model"] == "small"
    cluster.configure(before)
    in_force(cluster)


def test_engines_restarted_one_after_the_other_accept_the_new_name_and_the_old_one_ends(cluster: LocalCluster) -> None:
    before = cluster.document
    with askers(cluster.url, ("big", "large"), ("large", "big")):
        cluster.configure(renamed(before, {"big": "large"}))
        is_in_force_with(cluster, "large")
        for name in ("big-0", "big-1"):
            cluster.kill(name)
            cluster.all_down({name})
            cluster.start_engine(name)
            cluster.all_up({name})
        eventually(lambda: cluster.ask("big").status_code == 404, 2 * SOON_S, 0.1, "the old name ends")
    assert cluster.ask("large").json()["model"] == "large"


def test_engines_that_compose_started_are_asked_as_they_were_started(cluster: LocalCluster) -> None:
    document = cluster.document
    with askers(cluster.url, ("big", "vast")):
        started = write_started(cluster, {"big-0": "big", "big-1": "big"})
        cluster.configure(renamed(document, {"big": "vast"}))
        is_in_force_with(cluster, "vast")
        assert cluster.ask("vast").json()["model"] == "auto"
    started.unlink()
