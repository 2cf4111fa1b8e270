"""One look at one engine over HTTP. Each call has a deadline and never raises for what an engine does."""

import asyncio
import base64
import socket

import httpx

from config.engines import Engine
from controller.state import Look

# A grey PNG of 32 x 32 pixels: one vision token, and the whole path of a picture.
WARM_UP_PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAAAFklEQVR42mNoIAAYRhWMKhhVMFIVAABCAAAfN5c2AAAAAABJRU5ErkJggg=="
)


async def address_of(engine: Engine) -> str | None:
    """The engine's IPv4 address, or None when its name does not resolve: its container does not run."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(engine.host, engine.port, family=socket.AF_INET, type=socket.SOCK_STREAM)
    except OSError:
        return None
    return str(found[0][4][0])


async def look_at(client: httpx.AsyncClient, address: str, port: int, timeout_s: float) -> Look:
    """GET /health, waiting at most `timeout_s` seconds."""
    try:
        async with asyncio.timeout(timeout_s):
            response = await client.get(f"http://{address}:{port}/health", timeout=timeout_s)
    except httpx.ConnectError:
        return Look.GONE
    except (httpx.RequestError, TimeoutError):
        return Look.SILENT
    return Look.HEALTHY if response.status_code == 200 else Look.DEAD


async def warm_up(
    client: httpx.AsyncClient, address: str, port: int, model: str, pictures: bool, timeout_s: float
) -> str:
    """One token about one picture. Empty when answered, else what went wrong."""
    content: list[dict[str, object]] = [{"type": "text", "text": "Reply with one word."}]
    if pictures:
        url = "data:image/png;base64," + base64.b64encode(WARM_UP_PNG).decode()
        content.insert(0, {"type": "image_url", "image_url": {"url": url}})
    body = {"model": model, "max_tokens": 1, "messages": [{"role": "user", "content": content}]}
    try:
        async with asyncio.timeout(timeout_s):
            response = await client.post(
                f"http://{address}:{port}/v1/chat/completions",
                json=body,
                timeout=timeout_s,
                headers={"X-Request-Id": "manyeyes-warm-up"},
            )
    except (httpx.RequestError, TimeoutError) as error:
        return f"{type(error).__name__} {error}".strip()
    if response.status_code != 200:
        return f"status {response.status_code}: {response.text[:200]}"
    try:
        reason = response.json()["choices"][0]["finish_reason"]
    except (ValueError, LookupError, TypeError):
        return f"an answer that is no completion: {response.text[:200]}"
    return "" if reason in ("length", "stop") else f"finish_reason {reason}"
