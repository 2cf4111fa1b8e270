"""The gateway's deciding, module by module, in the real nginx: rules for `auto`, where a request goes next, conversations."""

import hashlib
import json
import random
from typing import Any

import pytest

from tests.integration.scan.server import Modules

# --- auto_routing.js ----------------------------------------------------------------------------------------------------


def rule(pool: str, **more: Any) -> dict[str, Any]:
    return {"pool": pool, "min_images": 0, "min_videos": 0, "min_text_bytes": 0, "reasoning_effort": [], **more}


RULES = [
    rule("think", reasoning_effort=["medium", "high"]),
    rule("big", min_images=2),
    rule("big", min_text_bytes=4000),
    rule("small"),
]


@pytest.mark.parametrize(
    ("facts", "budget_ms", "p95_ms", "pool", "words"),
    [
        ({}, 0, {}, "small", "rule 4: any request"),
        ({"images": 2}, 0, {}, "big", "rule 2: 2 image(s)"),
        ({"textBytes": 5000}, 0, {}, "big", "rule 3: 5000 bytes of text"),
        ({"effort": "high", "images": 9}, 0, {}, "think", "rule 1: reasoning effort high"),
        ({"effort": "low", "images": 1}, 0, {}, "small", "rule 4"),
        ({"images": 3}, 800, {"big": 700}, "big", "rule 2: 3 image(s)"),
        ({"images": 3}, 800, {"big": 900, "small": 300}, "small", "p95 of big is 900 ms, over the budget of 800 ms"),
        ({"images": 3}, 800, {"big": 900}, "small", "rule 4"),  # not measured yet: it gets its chance
        ({"images": 3}, 100, {"big": 900, "small": 300}, "small", "the fastest, though its p95 is over the budget"),
    ],
)
def test_the_first_rule_that_fits_and_keeps_the_budget_wins(
    njs: Modules, facts: dict[str, Any], budget_ms: int, p95_ms: dict[str, int], pool: str, words: str
) -> None:
    known = {"images": 0, "videos": 0, "textBytes": 0, "effort": ""} | facts
    asked = [{"rules": RULES, "facts": known, "budget_ms": budget_ms, "p95_ms": p95_ms}]
    choice = njs.ask("/choices", asked)[0]
    assert choice["pool"] == pool
    assert words in choice["reason"]


def test_without_a_rule_that_fits_there_is_no_pool(njs: Modules) -> None:
    facts = {"images": 0, "videos": 0, "textBytes": 0, "effort": ""}
    asked = {"rules": [rule("big", min_images=1)], "facts": facts, "budget_ms": 0, "p95_ms": {}}
    assert njs.ask("/choices", [asked]) == [None]


# --- retry_policy.js ------------------------------------------------------------------------------------------------

A, B, C = "10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000"
CHAIN = {"one": "two", "two": "three"}


@pytest.mark.parametrize(
    ("variables", "asked", "some_up", "following", "left", "outcome"),
    [
        # addresses, statuses, connect times, header times
        (["one", "502", "-", "-"], ["one"], False, "two", 2, "down"),
        (["one", "502", "-", "-"], ["one"], True, "two", 2, "busy"),
        ([f"{A}, {B}", "502, 502", "-, -", "-, -"], ["one"], True, "one.again", 2, "down"),
        (
            [f"{A}, {B} : {A}, {B}", "502, 502 : 502, 502", "-, - : -, -", "-, - : -, -"],
            ["one", "one"],
            True,
            "two",
            2,
            "down",
        ),
        ([A, "502", "-", "-"], ["one"], True, "one.again", 2, "down"),
        ([f"{A}, {B}", "503, 503", "0, 0", "0.1, 0.1"], ["one"], True, "two", 2, "busy"),
        ([f"{A}, {B}", "502, 503", "0, 0", "-, 0.1"], ["one"], True, "two.once", 1, "busy"),
        # A was cut, B had just died: a third engine may be up.
        ([f"{A}, {B}", "502, 502", "0, -", "-, -"], ["one"], True, "one.once", 1, "down"),
        ([f"{A}, {B}", "503, 502", "0, -", "0.1, -"], ["one"], True, "one.again", 2, "busy"),
        (
            [f"{A}, {B} : {A}, {B}, {C}", "502, 502 : 502, 502, 502", "0, - : -, -, 0", "-, - : -, -, -"],
            ["one", "one"],
            True,
            "",
            0,
            "lost",
        ),
        ([f"{A}, {B}", "502, 502", "0, 0", "-, -"], ["one"], True, "", 0, "lost"),
        ([f"{A}, {B}", "500, 502", "0, 0", "0.1, -"], ["one"], True, "", 0, "lost"),
        ([A, "502", "0", "-"], ["one"], True, "one.once", 1, "down"),
        ([f"{A}, one", "502, 502", "0, -", "-, -"], ["one"], True, "one.once", 1, "busy"),
        ([f"{A}, one", "503, 502", "0, -", "0.1, -"], ["one"], True, "two", 2, "busy"),
        ([A, "503", "0", "0.1"], ["one"], True, "two", 2, "busy"),
        ([A, "504", "0.001", "-"], ["one"], True, "one.once", 1, "late"),
        ([f"{A} : {B}", "502 : 502", "0 : 0", "- : -"], ["one", "one"], True, "", 0, "lost"),
        (["one : two", "502 : 502", "- : -", "- : -"], ["one", "two"], False, "three", 2, "down"),
        (
            ["one : two : three", "502 : 502 : 502", "- : - : -", "- : - : -"],
            ["one", "two", "three"],
            False,
            "",
            2,
            "down",
        ),
        ([f"{A}, one : {C}", "502, 502 : 502", "0, - : 0", "-, - : -"], ["one", "two"], True, "", 0, "lost"),
        (["", "", "", ""], ["one"], False, "two", 2, "down"),
        # An engine answered 500: the request or the engine may be at fault.
        ([A, "500", "0", "0.1"], ["one"], True, "one.once", 1, "lost"),
        ([f"{A}, {B}", "500, 500", "0, 0", "0.1, 0.1"], ["one"], True, "", 0, "failed"),
        ([f"{A} : {A}", "500 : 500", "0 : 0", "0.1 : 0.1"], ["one", "one"], True, "", 0, "failed"),
        ([f"{A}, {B}", "502, 500", "0, 0", "-, 0.1"], ["one"], True, "", 0, "lost"),
        ([f"{A}, {B}", "500, 503", "0, 0", "0.1, 0.1"], ["one"], True, "two.once", 1, "busy"),
        # 501 is never retried.
        ([A, "501", "0", "0.1"], ["one"], True, "", 2, "unsupported"),
        ([f"{A}, {B}", "502, 501", "0, 0", "-, 0.1"], ["one"], True, "", 1, "unsupported"),
    ],
)
def test_where_a_request_goes_that_was_not_answered(
    njs: Modules, variables: list[str], asked: list[str], some_up: bool, following: str, left: int, outcome: str
) -> None:
    given = {"variables": variables, "asked": asked, "fallback": CHAIN, "some_up": some_up}
    found = njs.ask("/hops", [given])[0]
    assert {name: found[name] for name in ("next", "left", "outcome")} == {
        "next": following,
        "left": left,
        "outcome": outcome,
    }


@pytest.mark.parametrize(
    ("variables", "following", "outcome"),
    [
        ([A, "502", "0", "-"], "", "lost"),
        ([A, "502", "-", "-"], "one.once", "down"),
        ([A, "500", "0", "0.1"], "", "lost"),
        ([A, "503", "0", "0.1"], "two.once", "busy"),
        (["one", "502", "-", "-"], "two.once", "busy"),
    ],
)
def test_a_request_that_ended_an_engine_before_may_end_one_more(
    njs: Modules, variables: list[str], following: str, outcome: str
) -> None:
    given = {"variables": variables, "asked": ["one"], "fallback": CHAIN, "some_up": True, "earlier": "digest"}
    found = njs.ask("/hops", [given])[0]
    assert (found["next"], found["outcome"]) == (following, outcome)


@pytest.mark.parametrize(
    ("variables", "ended"),
    [
        ([f"{A}, {B}", "502, 502", "0, 0", "-, -"], [A, B]),
        ([f"{A} : {A}", "502 : 502", "0 : 0", "- : -"], [A, A]),
        ([f"{A}, one", "502, 502", "0, -", "-, -"], [A]),
        ([A, "502", "-", "-"], []),  # it refused the connection
        ([A, "502", "0", "0.1"], []),  # it answered
        ([A, "500", "0", "0.1"], []),
        ([A, "504", "0", "-"], []),  # it was too slow
        ([A, "-", "0", "-"], []),  # the client left
    ],
)
def test_only_an_engine_that_breaks_the_connection_without_an_answer_ended(
    njs: Modules, variables: list[str], ended: list[str]
) -> None:
    given = {"variables": variables, "asked": ["one"], "fallback": {}, "some_up": True}
    assert njs.ask("/hops", [given])[0]["ended"] == ended


def any_attempts(chance: random.Random) -> dict[str, Any]:
    values = (
        [A, B, C, "one", ""],
        ["200", "429", "500", "501", "502", "503", "504", "-", ""],
        ["0", "-", ""],
        ["0.1", "-", ""],
    )
    count = chance.randrange(7)
    return {
        "variables": [", ".join(chance.choices(choices, k=count)) for choices in values],
        "asked": chance.choices(["one", "two"], k=chance.randint(1, 3)),
        "fallback": CHAIN,
        "some_up": chance.random() < 0.5,
        "earlier": chance.random() < 0.5,
    }


def test_no_attempts_lead_to_more_than_two_losses_or_to_an_unknown_outcome(njs: Modules) -> None:
    chance = random.Random(17)
    asked = [any_attempts(chance) for _ in range(5000)]
    for given, found in zip(asked, njs.ask("/hops", asked), strict=True):
        assert found["outcome"] in {"busy", "late", "lost", "down", "failed", "unsupported"}, given
        assert 0 <= found["left"] <= 2 - given["earlier"], given
        assert found["left"] or not found["next"], given
        assert found["left"] == 2 or not found["next"] or found["next"].endswith(".once"), given


# --- lost_requests.js -----------------------------------------------------------------------------------------------


def lost(at_s: float, *addresses: str, digest: str = "bomb", client: str = "me") -> dict[str, Any]:
    return {"at_s": at_s, "client": client, "digest": digest, "lost": addresses}


def answered(at_s: float, digest: str = "bomb") -> dict[str, Any]:
    return {"at_s": at_s, "client": "me", "digest": digest, "lost": None}


def arrives(at_s: float, digest: str = "bomb", client: str = "me") -> dict[str, Any]:
    return {"at_s": at_s, "client": client, "digest": digest}


CROWD = [lost(1.0 + n / 1000, A, B, digest=f"beside {n}") for n in range(50)]


@pytest.mark.parametrize(
    ("steps", "losses", "is_refused"),
    [
        ([arrives(0)], 0, False),
        ([lost(0, A)], 1, False),
        ([lost(0, A, B)], 2, True),
        ([lost(0, A), lost(60, A)], 2, True),
        ([lost(0, A, A)], 2, True),  # the only engine of a pool, twice
        ([lost(0, A), lost(1, A)], 1, False),  # equal requests at the same time lose an engine once
        ([lost(0, A), answered(1), lost(60, A)], 1, False),
        ([lost(0, A, B), arrives(599)], 2, True),
        ([lost(0, A, B), arrives(601)], 0, False),
        ([lost(0, A, B, client="other"), arrives(1)], 0, False),
        ([lost(0, A, B), arrives(1, digest="another")], 0, False),
        # Beside others: which request ended the engines is not known yet.
        ([lost(1, A, B), *CROWD, arrives(2)], 2, False),
        ([lost(1, A, B), *CROWD, arrives(2, digest="beside 7")], 2, False),
        ([lost(1, A, B), *CROWD, lost(60, A)], 3, True),
        # A request that is sent all the time, and was answered, before engines ended.
        ([lost(0, A, B) | {"was_answered": True}], 2, False),
        ([lost(0, A, B) | {"was_answered": True}, lost(60, A)], 3, True),
        ([lost(1, A, B), *CROWD, answered(60, digest="beside 7"), lost(90, A, digest="beside 7")], 1, False),
    ],
)
def test_a_request_is_refused_after_it_ended_two_engines_alone_or_more_beside_others(
    njs: Modules, steps: list[dict[str, Any]], losses: int, is_refused: bool
) -> None:
    found = njs.ask("/losses", [steps])[0][-1]
    assert (found["losses"], found["isRefused"]) == (losses, is_refused)


def test_a_refusal_ends_ten_minutes_after_the_last_loss(njs: Modules) -> None:
    assert njs.ask("/losses", [[lost(0, A), lost(60, A)]])[0][-1]["untilMs"] == 660_000


def test_the_digest_is_needed_only_for_a_client_with_a_loss(njs: Modules) -> None:
    found = njs.ask("/losses", [[arrives(0), lost(0, A), arrives(1, digest="x"), arrives(1, client="other")]])[0]
    assert [step["isSuspect"] for step in found] == [False, True, True, False]


@pytest.mark.parametrize("length", [0, 5, 2**20, 2**20 + 1, 3 * 2**20 + 7])
def test_a_digest_covers_every_byte(njs: Modules, length: int) -> None:
    document = random.Random(length).randbytes(length)
    assert njs.digest(document) == hashlib.sha256(document).hexdigest()


def test_a_circle_of_fallbacks_ends(njs: Modules) -> None:
    given = {
        "variables": ["one : two", "502 : 502", "- : -", "- : -"],
        "asked": ["one", "two"],
        "fallback": {"one": "two", "two": "one"},
        "some_up": False,
    }
    assert njs.ask("/hops", [given])[0]["next"] == ""


# --- content_parts.js -----------------------------------------------------------------------------------------------

TEXT = {"type": "text", "text": "x"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}


@pytest.mark.parametrize(
    ("document", "names"),
    [
        ({"messages": [{"content": "x"}, {"content": [TEXT]}]}, ""),
        ({"messages": [{"content": "x"}, {"content": [TEXT, IMAGE]}]}, "messages[1].content[1] (image_url)"),
        ({"messages": [{"content": [TEXT | {"image_url": "file:///x"}]}]}, "messages[0].content[0] (text)"),
        ({"input": [{"content": [{"type": "input_file"}]}]}, "input[0].content[0] (input_file)"),
        ({"messages": [{"content": [5, None, {"type": 7}]}]}, ", ".join(
            f"messages[0].content[{n}] (without type)" for n in range(3)
        )),
        ({"messages": [{"content": [IMAGE] * 9}]}, ", ".join(
            f"messages[0].content[{n}] (image_url)" for n in range(4)
        ) + " and 5 more"),
        ({"messages": "x" * 9_000_000}, ""),
        ({"messages": [None, 5, []], "input": "x"}, ""),
        ({"prompt": "x"}, ""),
    ],
)  # fmt: skip
def test_content_parts_that_may_be_at_fault_are_named(njs: Modules, document: object, names: str) -> None:
    assert njs.described(document) == names


# --- session_affinity.js --------------------------------------------------------------------------------------------


def chat(*texts: str, system: str = "") -> str:
    """A body whose messages are a user's and an assistant's by turns."""
    messages = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    return json.dumps({"model": "m", "messages": messages})


def identify(njs: Modules, *documents: str, who: str = "me") -> list[dict[str, str]]:
    found: list[dict[str, str]] = njs.ask("/conversations", [{"documents": documents, "who": who}])[0]
    return found


def test_a_first_turn_is_never_known_and_its_next_turns_are(njs: Modules) -> None:
    first, second, third = identify(njs, chat("a"), chat("a", "b", "c"), chat("a", "b", "c", "d", "e"))
    assert first["known"] == ""
    assert first["id"] == second["known"] == third["known"] == third["id"] != ""


def test_long_turns_are_told_apart_by_samples_and_still_found_again(njs: Modules) -> None:
    long = "x" * 300_000
    first, other, second = identify(njs, chat(long + "one"), chat(long + "two"), chat(long + "one", "b", "c"))
    assert first["id"] != other["id"]
    assert second["known"] == first["id"]


def test_examples_that_nobody_here_answered_make_nothing_known(njs: Modules) -> None:
    batch = [chat("example", "answer", f"page {n}") for n in range(5)]
    found = identify(njs, *batch, chat("example", "answer", "page 3", "Invoice", "and the date?"))
    assert [one["known"] for one in found[:5]] == [""] * 5
    assert len({one["id"] for one in found[:5]}) == 5
    assert found[5]["known"] == found[3]["id"], "a chat that goes on after examples is a conversation of its own"


def test_whoever_asks_has_conversations_of_their_own(njs: Modules) -> None:
    mine, yours = (identify(njs, chat("hi"), who=who)[0]["id"] for who in ("me", "you"))
    assert mine != yours


def test_a_request_without_messages_belongs_to_no_conversation(njs: Modules) -> None:
    assert identify(njs, '{"model":"m","prompt":"x"}', '{"model":"m","messages":[]}') == [{"id": "", "known": ""}] * 2
