"""The endpoints of the Fallback tab: those that the operator named, and no other."""

import asyncio
import dataclasses
from typing import Any

import gradio as gr
import pytest

from webui import settings
from webui.chat.streamed_answer import StreamedAnswer
from webui.cluster import endpoint_client
from webui.cluster.endpoint_client import EndpointAddress, check_address, is_same_endpoint
from webui.cluster.gateway_client import KEY_HEADER
from webui.settings import SettingsError, WebuiSettings
from webui.tabs.fallback import FallbackHandlers
from webui.user_error import UserError

GATEWAY = "http://127.0.0.1:8079"
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


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "[::ffff:169.254.169.254]",
        "[::ffff:a9fe:a9fe]",
        "[64:ff9b::a9fe:a9fe]",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "100.100.100.200",
        "168.63.129.16",
        "2852039166",
    ],
)
def test_an_address_of_a_clouds_metadata_is_not_asked(host: str) -> None:
    with pytest.raises(UserError, match="Link-local"):
        check_address(EndpointAddress("Primary", f"http://{host}/v1"))


def test_other_addresses_are_asked() -> None:
    for host in ("127.0.0.1:8000", "[::1]:8000", "10.0.0.5", "[::ffff:10.0.0.5]"):
        address = EndpointAddress("Primary", f"http://{host}/v1")
        assert check_address(address) is address


def test_another_port_is_another_place() -> None:
    assert is_same_endpoint("http://a/v1", "http://A:80/v1")
    assert not is_same_endpoint("http://127.0.0.1:8000/v1", "http://127.0.0.1:8001/v1")
    assert not is_same_endpoint("http://a/v1", "https://a/v1")


def test_an_endpoint_that_is_no_address_is_told_when_the_page_starts() -> None:
    with pytest.raises(SettingsError, match="FALLBACK_BASE_URL wants an address like"):
        settings.read_settings({"FALLBACK_BASE_URL": "api.example.com/v1"})
