"""What a probe makes of what an engine does; nothing an engine answers may raise."""

import httpx
import pytest

from controller import probe
from controller.state import Look


def client(handler: object) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.MockTransport(handler))  # type: ignore[arg-type]  # sync handlers are fine


def raising(error: Exception) -> object:
    def handler(request: httpx.Request) -> httpx.Response:
        raise error

    return handler


@pytest.mark.parametrize(
    ("handler", "seen"),
    [
        (lambda request: httpx.Response(200), Look.HEALTHY),
        (lambda request: httpx.Response(503), Look.DEAD),
        (raising(httpx.ConnectError("refused")), Look.GONE),
        (raising(httpx.ReadTimeout("slow")), Look.SILENT),
        (raising(httpx.RemoteProtocolError("cut")), Look.SILENT),
        (raising(httpx.DecodingError("not gzip")), Look.SILENT),
    ],
)
async def test_each_outcome_of_a_look(handler: object, seen: Look) -> None:
    assert await probe.look_at(client(handler), "10.0.0.1", 8000, 1) is seen


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (lambda request: httpx.Response(200, json={"choices": [{"finish_reason": "length"}]}), ""),
        (lambda request: httpx.Response(200, json={"choices": [{"finish_reason": "abort"}]}), "finish_reason abort"),
        (lambda request: httpx.Response(500, text="broken"), "status 500: broken"),
        (lambda request: httpx.Response(200, text="<html>"), "an answer that is no completion: <html>"),
        (lambda request: httpx.Response(200, json=[]), "an answer that is no completion: []"),
        (raising(httpx.ReadTimeout("slow")), "ReadTimeout slow"),
    ],
)
async def test_each_outcome_of_a_warm_up(handler: object, said: str) -> None:
    assert await probe.warm_up(client(handler), "10.0.0.1", 8000, "m", True, 1) == said


async def test_the_warm_up_sends_a_picture_where_the_pool_takes_pictures() -> None:
    sent: list[bytes] = []

    def handler(request: httpx.Request) -> httpx.Response:
        sent.append(request.content)
        return httpx.Response(200, json={"choices": [{"finish_reason": "stop"}]})

    await probe.warm_up(client(handler), "10.0.0.1", 8000, "m", True, 1)
    await probe.warm_up(client(handler), "10.0.0.1", 8000, "m", False, 1)
    assert b"data:image/png;base64," in sent[0]
    assert b"image" not in sent[1]
