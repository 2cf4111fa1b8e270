"""Which requests the page answers: its own scripts' and programs', and of other origins only a link that opens it."""

import asyncio
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from webui.auth.same_origin import SameOriginMiddleware

EVENT = "/gradio_api/call/chat"
NAVIGATES = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


async def allows_everybody(scope: Scope, receive: Receive, send: Send) -> None:
    """As Gradio answers under a name that is not localhost."""
    names = (b"access-control-allow-origin", b"access-control-allow-credentials", b"access-control-allow-headers")
    await send({"type": "http.response.start", "status": 200, "headers": [(name, b"any") for name in names]})
    await send({"type": "http.response.body", "body": b"secret"})


def asked(method: str = "POST", path: str = EVENT, kind: str = "http", **headers: str) -> list[Message]:
    """What was received of a body of nine parts of half a MiB, then what was sent."""
    events: list[Message] = []

    async def receive() -> Message:
        assert kind == "http"
        events.append({"type": "http.request", "body": b"x" * (1 << 19), "more_body": len(events) < 8})
        return events[-1]

    async def send(message: Message) -> None:
        events.append(message)

    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    scope: dict[str, Any] = {"type": kind, "method": method, "path": path, "headers": pairs, "query_string": b""}
    asyncio.run(SameOriginMiddleware(allows_everybody)(scope, receive, send))
    return events


def started(events: list[Message]) -> Message:
    return next(event for event in events if event["type"] == "http.response.start")


def test_a_refusal_comes_after_the_body_so_that_the_connection_stays_usable() -> None:
    events = asked(Host="gpu:8080", Origin="https://evil.example")
    half_mib = "http.request"  # no more than 1 MiB of a long body
    assert [event["type"] for event in events] == [half_mib, half_mib, "http.response.start", "http.response.body"]


def status(method: str = "POST", path: str = EVENT, **headers: str) -> int:
    start = started(asked(method, path, **headers))
    assert [name for name, _ in start["headers"] if name.startswith(b"access-control")] == []
    return int(start["status"])


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "gpu:8080"},
        {"Host": "gpu:8080", "Origin": "http://gpu:8080"},
        {"Host": "GPU.Corp.Example:8080", "Origin": "http://gpu.corp.example:8080"},
        {"Host": "gpu", "Origin": "http://gpu"},
        {"Host": "gpu", "Origin": "https://gpu"},
        {"Host": "gpu:80", "Origin": "http://gpu"},
        {"Host": "gpu:443", "Origin": "https://gpu", "X-Forwarded-Proto": "http"},
        {"Host": "[::1]:8080", "Origin": "http://[::1]:8080"},
        {"Host": "[fd00::A]", "Origin": "http://[fd00::a]"},
        {"Host": "webui:7860", "X-Forwarded-Host": "gpu.corp.example:9090", "Origin": "http://gpu.corp.example:9090"},
        {"Host": "webui", "X-Forwarded-Host": "eyes.example, gpu", "Origin": "https://eyes.example"},
        {"Host": "eyes.example", "X-Forwarded-Port": "9090", "Origin": "http://eyes.example:9090"},
        {"Host": "10.0.0.5:8080", "Origin": "https://eyes.example", "Sec-Fetch-Site": "same-origin"},
        {"Host": "gpu:8080", "Sec-Fetch-Site": "none"},
    ],
)
def test_the_pages_own_scripts_and_programs_are_answered(headers: dict[str, str]) -> None:
    assert status(**headers) == 200


FOREIGN = [
    {"Host": "gpu:8080", "Origin": "https://evil.example"},
    {"Host": "gpu:8080", "Origin": "null"},
    {"Host": "gpu:8080", "Origin": ""},
    {"Host": "gpu:8080", "Origin": "http://gpu:3000"},
    {"Host": "gpu:8080", "Origin": "http://gpu"},
    {"Host": "gpu:8080", "Origin": "http://gpu:port"},
    {"Host": "localhost:8080", "Origin": "http://localhost:3000"},
    {"Host": "localhost:8080", "Origin": "http://localhost.evil.example:8080"},
    {"Host": "localhost:8080", "Origin": "http://127.0.0.1:8080"},
    {"Host": "gpu:8080", "Origin": "chrome-extension://gpu:8080"},
    {"Host": "gpu:8080", "Origin": "http://gpu:8080@evil.example"},
    {"Host": "[::1]:8080", "Origin": "http://[::2]:8080"},
    {"Host": "gpu:8080", "Sec-Fetch-Site": "cross-site"},
    {"Host": "gpu:8080", "Sec-Fetch-Site": "same-site", "Origin": "http://gpu:3000"},
]


@pytest.mark.parametrize("headers", FOREIGN)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", EVENT),
        ("POST", "/gradio_api/upload"),
        ("POST", "/zh/gradio_api/queue/join"),
        ("POST", "/login"),
        ("POST", "/"),
        ("OPTIONS", EVENT),
        ("GET", "/config"),
        ("GET", "/gradio_api/file=/tmp/gradio/x/y.png"),
        ("GET", "/logout"),
    ],
)
def test_a_page_of_another_origin_is_refused(method: str, path: str, headers: dict[str, str]) -> None:
    assert status(method, path, **headers) == 403


@pytest.mark.parametrize("path", ["/", "/zh/", "/zh", "/login", "/zh/login"])
def test_a_link_on_another_site_opens_the_page(path: str) -> None:
    assert status("GET", path, Host="gpu:8080", **NAVIGATES) == 200


@pytest.mark.parametrize("more", [{"Sec-Fetch-Dest": "iframe"}, {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}])
def test_another_site_does_not_open_it_inside_its_own_page(more: dict[str, str]) -> None:
    assert status("GET", "/", Host="gpu:8080", **(NAVIGATES | more)) == 403


def test_a_websocket_of_another_origin_is_closed() -> None:
    assert asked("GET", "/ws", "websocket", Host="gpu:8080", Origin="http://evil.example") == [
        {"type": "websocket.close", "code": 1008}
    ]


def test_the_logins_own_form_says_its_origin() -> None:
    start = started(asked(Host="gpu:8080"))
    assert dict(start["headers"])[b"referrer-policy"] == b"same-origin", "with no-referrer browsers say null"
