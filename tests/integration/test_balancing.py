"""Which engine a request goes to: conversations, pictures, weights and limits, with real nginx."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from manyeyes.devcluster.cluster import LocalCluster, local_cluster
from tests.integration.documents import document
from tests.integration.scan.images import data_url, png

PICTURES = [data_url(png(8, 6, bytes([n]) * 9000)) for n in range(8)]


POOLS = document(
    {
        "chat": ["chat-0", "chat-1", "chat-2"],
        "docs": ["docs-0", "docs-1", "docs-2"],
        "turns": ["turns-0", "turns-1"],
        "plain": ["plain-0", "plain-1"],
        "uneven": ["uneven-1"],
    },
    {
        "docs": {"balancing": "image"},
        "turns": {"balancing": "round_robin"},
        "plain": {"balancing": "least_conn"},
        "uneven": {"balancing": "least_conn"},
    },
)
POOLS["engines"].append({"name": "uneven-3", "pool": "uneven", "weight": 3})


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with local_cluster(tmp_path_factory.mktemp("local_cluster"), POOLS, engine_flags=("--ttft-ms=150",)) as running:
        running.all_up({engine["name"] for engine in running.document["engines"]})
        yield running


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def answer(text: str = "Yes.") -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def engine_of(cluster: LocalCluster, model: str, messages: list[dict[str, Any]], **headers: str) -> str:
    body = {"model": model, "messages": messages, "max_tokens": 2}
    port = cluster.ports["page" if "X-ManyEyes-Page-Key" in headers else "gateway"]
    reply = cluster.client.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, headers=headers)
    assert reply.status_code == 200, reply.text
    return reply.headers["X-ManyEyes-Engine"]


def engines_of(cluster: LocalCluster, bodies: list[dict[str, Any]], at_once: int = 30, **headers: str) -> Counter[str]:
    """Who answered, when so many are asked at a time."""

    async def run() -> list[str]:
        turn = asyncio.Semaphore(at_once)
        async with httpx.AsyncClient(timeout=60) as client:

            async def one(body: dict[str, Any]) -> str:
                async with turn:
                    reply = await client.post(f"{cluster.url}/v1/chat/completions", json=body, headers=headers)
                assert reply.status_code == 200, reply.text
                return reply.headers["X-ManyEyes-Engine"]

            return await asyncio.gather(*map(one, bodies))

    return Counter(asyncio.run(run()))


def test_300_equal_first_requests_spread_evenly(cluster: LocalCluster) -> None:
    body = {"model": "chat", "messages": [user("What is in this picture?")], "max_tokens": 2}
    shares = engines_of(cluster, [body] * 300)
    assert len(shares) == 3
    assert max(shares.values()) - min(shares.values()) <= 15, shares


def test_a_batch_that_shows_the_same_examples_first_spreads_too(cluster: LocalCluster) -> None:
    examples = [user("Read this page."), answer("Invoice 1"), user("And this."), answer("Invoice 2")]
    bodies = [{"model": "chat", "messages": [*examples, user(f"Page {n}")], "max_tokens": 2} for n in range(150)]
    shares = engines_of(cluster, bodies)
    assert len(shares) == 3
    assert max(shares.values()) - min(shares.values()) <= 15, shares


def test_later_turns_of_a_chat_go_back_to_its_engine_while_others_are_busy_there(cluster: LocalCluster) -> None:
    chats = [[user(f"Chat {n}")] for n in range(12)]
    first = [engine_of(cluster, "chat", chat) for chat in chats]
    assert set(first) == {"chat-0", "chat-1", "chat-2"}
    for turn in range(3):
        for chat in chats:
            chat += [answer(f"Answer {turn}"), user(f"Question {turn}")]
        assert [engine_of(cluster, "chat", chat) for chat in chats] == first


def test_a_chat_is_known_by_its_first_message_when_earlier_turns_were_rewritten(cluster: LocalCluster) -> None:
    task = user("Book a flight")
    seen = engine_of(cluster, "chat", [task])
    for step in range(1, 6):
        shortened = [task, answer(f"click {step}"), user(f"screenshot {step}, older ones left out")]
        assert engine_of(cluster, "chat", shortened) == seen


def test_a_system_prompt_that_changes_every_turn_does_not_lose_the_chat(cluster: LocalCluster) -> None:
    history = [user("Same chat, other clock")]
    seen = engine_of(cluster, "chat", [{"role": "system", "content": "It is 10:00"}, *history])
    for minute in range(1, 6):
        history += [answer(), user(f"Question {minute}")]
        assert engine_of(cluster, "chat", [{"role": "system", "content": f"It is 10:0{minute}"}, *history]) == seen


def test_a_conversation_id_in_header_or_body_wins(cluster: LocalCluster) -> None:
    seen = {engine_of(cluster, "chat", [user(f"Unlike {n}")], **{"X-Conversation-Id": "session-7"}) for n in range(9)}
    assert len(seen) == 1
    bodies = [
        {"model": "chat", "messages": [user(f"Other {n}")], "prompt_cache_key": "k", "max_tokens": 2} for n in range(9)
    ]
    assert len(engines_of(cluster, bodies, at_once=1)) == 1


def test_two_visits_of_the_page_that_begin_alike_are_two_conversations(cluster: LocalCluster) -> None:
    def at(page: str, *messages: dict[str, Any]) -> str:
        return engine_of(cluster, "chat", list(messages), **cluster.page_headers, **{"X-ManyEyes-Page": page})

    begun = {page: at(page, user("hi")) for page in "abcdefghi"}
    assert len(set(begun.values())) == 3
    for page, engine in begun.items():
        assert at(page, user("hi"), answer(), user("more")) == engine


def test_the_same_picture_goes_to_the_same_engine_where_a_pool_asks_for_it(cluster: LocalCluster) -> None:
    def about(picture: str, n: int) -> list[dict[str, Any]]:
        shown = {"type": "image_url", "image_url": {"url": picture}}
        return [{"role": "user", "content": [{"type": "text", "text": f"Question {n}"}, shown]}]

    chosen = {}
    for picture in PICTURES:
        seen = {cluster.ask("docs", messages=about(picture, n)).headers["X-ManyEyes-Engine"] for n in range(4)}
        assert len(seen) == 1, seen
        chosen[picture] = seen.pop()
    assert len(set(chosen.values())) == 3


def test_round_robin_goes_in_turn(cluster: LocalCluster) -> None:
    seen = [engine_of(cluster, "turns", [user("x")]) for _ in range(12)]
    assert Counter(seen) == {"turns-0": 6, "turns-1": 6}


def test_least_conn_heeds_no_conversation(cluster: LocalCluster) -> None:
    chat = [user("one chat"), answer(), user("more")]
    assert len({engine_of(cluster, "plain", chat, **{"X-Conversation-Id": "s"}) for _ in range(8)}) == 2


def test_an_engine_of_weight_3_is_given_three_times_as_many_at_a_time(cluster: LocalCluster) -> None:
    shares = engines_of(
        cluster, [{"model": "uneven", "messages": [user(str(n))], "max_tokens": 2} for n in range(200)], at_once=16
    )
    assert 2.2 <= shares["uneven-3"] / shares["uneven-1"] <= 4, shares


def test_a_full_engine_is_passed_over_and_when_all_are_full_the_answer_is_429_at_once(tmp_path: Path) -> None:
    limited = document({"small": ["small-0", "small-1"], "mixed": []}, {"small": {"max_in_flight": 2}})
    limited["engines"] += [
        {"name": "mixed-8", "pool": "mixed", "gpu_memory_gb": 8},
        {"name": "mixed-80", "pool": "mixed", "gpu_memory_gb": 80},
    ]
    with local_cluster(tmp_path, limited, engine_flags=("--ttft-ms=1500",)) as cluster:
        cluster.all_up({"small-0", "small-1", "mixed-8", "mixed-80"})
        chat = [user("a full house"), answer(), user("more")]
        assert_spread_and_refusal(cluster, chat)
        bodies = [{"model": "mixed", "messages": [user(str(n))], "max_tokens": 2} for n in range(60)]
        shares = engines_of(cluster, bodies, at_once=60)
        # 8 GiB: 12 run and 12 wait; the other one takes what is left.
        assert shares["mixed-8"] == 24, shares


def assert_spread_and_refusal(cluster: LocalCluster, chat: list[dict[str, Any]]) -> None:
    async def run() -> list[httpx.Response]:
        """In the order in which they came."""
        async with httpx.AsyncClient(timeout=60) as client:
            url, headers = f"{cluster.url}/v1/chat/completions", {"X-Conversation-Id": "one"}
            body = {"model": "small", "messages": chat, "max_tokens": 2}
            await client.post(url, json=body, headers=headers)
            asking = [asyncio.create_task(client.post(url, json=body, headers=headers)) for _ in range(7)]
            return [await reply for reply in asyncio.as_completed(asking)]

    replies = asyncio.run(run())
    answered = Counter(reply.headers["X-ManyEyes-Engine"] for reply in replies if reply.status_code == 200)
    assert answered == {"small-0": 2, "small-1": 2}
    refused = replies[:3]  # a full house is said before anybody is answered, not after a wait
    for reply in refused:
        assert (reply.status_code, reply.headers["Retry-After"]) == (429, "5")
        assert reply.json()["error"]["code"] == "overloaded"


def test_when_every_engine_is_full_the_answer_is_429_with_retry_after_and_nothing_is_lost_below(tmp_path: Path) -> None:
    with local_cluster(tmp_path, document({"big": ["late-0", "late-1"]})) as running:
        for name in ("late-0", "late-1"):
            running.start_engine(name, "--max-num-seqs=1", "--max-num-queued-reqs=2", "--tpot-ms=100")
        running.answers_from("big", {"late-0", "late-1"}, within_s=30)
        with ThreadPoolExecutor(8) as users:
            replies = list(users.map(lambda _: running.ask("big", max_tokens=40, ignore_eos=True), range(8)))
        statuses = Counter(reply.status_code for reply in replies)
        # Two engines with two places each; as in vLLM, requests that come at once may pass the check together.
        assert set(statuses) == {200, 429}, [reply.text for reply in replies]
        assert statuses[200] >= 4
        refused = next(reply for reply in replies if reply.status_code == 429)
        assert (refused.headers["Retry-After"], refused.json()["error"]["code"]) == ("5", "overloaded")
