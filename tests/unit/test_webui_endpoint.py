"""The endpoints of the Fallback tab: those that the operator named, and no other."""

import asyncio
import dataclasses
import socket
from typing import Any

import gradio as gr
import pytest

from tests.integration.raw_tcp_engine import http, raw_engine
from webui import settings
from webui.chat.chat_requester import SamplingSettings
from webui.chat.completion_stream import Visitor
from webui.chat.streamed_answer import StreamedAnswer
from webui.cluster import endpoint_client
from webui.cluster.endpoint_client import check_endpoint, is_same_endpoint
from webui.cluster.gateway_client import KEY_HEADER
from webui.settings import EndpointAddress, SettingsError, WebuiSettings
from webui.tabs.fallback import FallbackHandlers
from webui.user_error import UserError

GATEWAY = "http://127.0.0.1:8079"
QUESTION = SamplingSettings("m").build_request([], Visitor())
OTHER = EndpointAddress("Primary", "https://api.example.com/v1", "dear", "operators-secret")


def asked(
    monkeypatch: pytest.MonkeyPatch, found: WebuiSettings, *typed: str
) -> list[tuple[EndpointAddress, dict[str, Any]]]:
    """Whom the tab asks with these boxes, and with which headers."""
    seen: list[tuple[EndpointAddress, dict[str, Any]]] = []

    async def ask(address: EndpointAddress, question: object, answer: StreamedAnswer, headers: dict[str, Any]) -> None:
        seen.append((address, headers))
        answer.failure = UserError("Down.")

    monkeypatch.setattr(endpoint_client, "stream_from_endpoint", ask)
    request = gr.Request(session_hash="visit", headers={KEY_HEADER: "alice"})

    async def running() -> None:
        async for _ in FallbackHandlers(found).run(request, endpoint_client.PRIMARY_AS_IT_IS, "hi", *typed):
            pass

    asyncio.run(running())
    return seen


def test_an_endpoint_of_the_operator_gets_its_key_and_not_the_visitors_name(monkeypatch: pytest.MonkeyPatch) -> None:
    found = dataclasses.replace(settings.read_settings({"MANYEYES_GATEWAY_URL": GATEWAY}), primary=OTHER)
    (first, to_first), (second, to_second) = asked(monkeypatch, found, "", "", "", OTHER.base_url, "", "")
    assert (first.base_url, first.model, first.key, to_first) == (OTHER.base_url, "dear", "operators-secret", {})
    assert (second.base_url, second.key, to_second) == (OTHER.base_url, "operators-secret", {})
    (first, _), (second, _) = asked(monkeypatch, found, "", "", "mine", "", "", "mine")
    assert (first.key, second.key) == ("mine", ""), "a typed key comes first, and the gateway gets none"
    assert "operators-secret" not in repr(OTHER)


@pytest.mark.parametrize(
    "written",
    [
        "http://127.0.0.1:8079/v1",
        "http://localhost:8079/v1",
        "http://LOCALHOST:8079/v1/",
        "http://[::ffff:127.0.0.1]:8079/v1",
    ],
)
def test_the_gateway_is_told_who_asks_however_its_address_is_written(
    monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    found = settings.read_settings(
        {"MANYEYES_GATEWAY_URL": GATEWAY, "PRIMARY_BASE_URL": written, "PRIMARY_MODEL": "big"}
    )
    (first, headers), _ = asked(monkeypatch, found, written, "", "a key that was typed", "", "", "")
    assert (first.base_url, first.model, first.key) == (f"{GATEWAY}/v1", "big", "")
    assert headers[KEY_HEADER] == "alice"


@pytest.mark.parametrize(
    "typed", ["http://localhost:8079/v1", "http://127.0.0.1:8079/v1/x", "HTTP://127.0.0.1:8079/v1", "x"]
)
def test_what_a_visitor_types_is_no_address(monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
    found = settings.read_settings({"MANYEYES_GATEWAY_URL": GATEWAY})
    for boxes in ((typed, "", "", "", "", ""), ("", "", "", typed, "", "")):
        with pytest.raises(gr.Error, match="is not among the addresses"):
            asked(monkeypatch, found, *boxes)
        with pytest.raises(gr.Error, match="is not among the addresses"):
            asyncio.run(FallbackHandlers(found).check(gr.Request(session_hash="visit", headers={}), *boxes))


def test_the_gateway_is_offered_first_and_an_endpoint_by_its_host() -> None:
    found = dataclasses.replace(settings.read_settings({"MANYEYES_GATEWAY_URL": GATEWAY}), primary=OTHER)
    assert FallbackHandlers(found).choices() == [
        ("Gateway", f"{GATEWAY}/v1"),
        ("Primary (api.example.com)", OTHER.base_url),
    ]


REFUSED = "The page does not connect to link-local addresses."


def looked_at(url: str) -> str:
    """What the card of an endpoint at this address says."""
    return asyncio.run(check_endpoint(EndpointAddress("Primary", url, key="operators-secret"), {})).message


@pytest.mark.parametrize(
    "host",
    ["169.254.169.254", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::1]",
     "[fd00:ec2::254]", "[fe80::1]", "100.100.100.200", "168.63.129.16", "192.0.0.192", "2852039166", "0xa9fea9fe",
     "0.0.0.0", "[::]", "[::ffff:0.0.0.0]", "[64:ff9b::]", "224.0.0.1", "255.255.255.255", "[ff02::1]"],
)  # fmt: skip
def test_a_clouds_metadata_and_what_is_no_machine_are_not_asked_however_they_are_written(host: str) -> None:
    assert REFUSED in looked_at(f"http://{host}:9/v1")
    answer = StreamedAnswer(0.0)
    address = EndpointAddress("Primary", f"http://{host}:9/v1")
    asyncio.run(endpoint_client.stream_from_endpoint(address, QUESTION, answer, {}))
    assert answer.failure
    assert answer.failure.summary == REFUSED


@pytest.mark.parametrize("host", ["127.0.0.1", "[::ffff:127.0.0.1]", "localhost"])
def test_the_operator_may_name_an_endpoint_on_this_machine(host: str) -> None:
    assert "cannot be reached" in looked_at(f"http://{host}:9/v1")


def resolves_to(monkeypatch: pytest.MonkeyPatch, *lookups: list[str]) -> list[str]:
    """Every name leads to these addresses, another list at each lookup; the names that were looked up."""
    real, names, left = socket.getaddrinfo, [], list(lookups)

    def lookup(host: Any, *more: Any, **named: Any) -> Any:
        if str(host).startswith("127."):
            return real(host, *more, **named)
        names.append(str(host))
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in left.pop(0)]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return names


def test_one_bad_address_of_a_name_refuses_all(monkeypatch: pytest.MonkeyPatch) -> None:
    resolves_to(monkeypatch, ["127.0.0.1", "169.254.169.254"])
    assert REFUSED in looked_at("http://api.example.com:9/v1")


def test_the_very_address_that_was_judged_is_asked_and_no_redirect_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    names = resolves_to(monkeypatch, ["127.0.0.2", "127.0.0.1"], ["169.254.169.254"])
    with raw_engine(0, lambda path: http(b"", 302, "Location: /elsewhere")) as engine:
        assert "status 302" in looked_at(f"http://api.example.com:{engine.port}/v1")
    [head] = engine.heads
    assert head.startswith("GET /v1/models ")
    assert f"Host: api.example.com:{engine.port}" in head
    assert names == ["api.example.com"]


async def test_another_port_is_another_place() -> None:
    assert await is_same_endpoint("http://a/v1", "http://A:80/v1")
    assert not await is_same_endpoint("http://127.0.0.1:8000/v1", "http://127.0.0.1:8001/v1")
    assert not await is_same_endpoint("http://a/v1", "https://a/v1")


def test_an_endpoint_that_is_no_address_is_told_when_the_page_starts() -> None:
    with pytest.raises(SettingsError, match="FALLBACK_BASE_URL: expected an address like"):
        settings.read_settings({"FALLBACK_BASE_URL": "api.example.com/v1"})
