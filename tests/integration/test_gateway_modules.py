"""The gateway's deciding, module by module, in the real nginx: rules for `auto`, where a request goes next, conversations."""

import json
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
    ],
)
def test_where_a_request_goes_that_was_not_answered(
    njs: Modules, variables: list[str], asked: list[str], some_up: bool, following: str, left: int, outcome: str
) -> None:
    given = {"variables": variables, "asked": asked, "fallback": CHAIN, "some_up": some_up}
    assert njs.ask("/hops", [given]) == [{"next": following, "left": left, "outcome": outcome}]


def test_a_circle_of_fallbacks_ends(njs: Modules) -> None:
    given = {
        "variables": ["one : two", "502 : 502", "- : -", "- : -"],
        "asked": ["one", "two"],
        "fallback": {"one": "two", "two": "one"},
        "some_up": False,
    }
    assert njs.ask("/hops", [given])[0]["next"] == ""


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
