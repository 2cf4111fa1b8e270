"""One HTTP call whose answer is bounded in bytes and time, whatever the other side does. Redirects are not followed."""

import asyncio
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

MOST_BYTES = 4 << 20


class RequestFailed(Exception):
    """There is no answer that could be used; the message says why."""


@dataclass(frozen=True, slots=True)
class BoundedResponse:
    status: int
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """Raises ValueError."""
        return orjson.loads(self.body)


async def bounded_request(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    timeout_s: float,
    body: Any = None,
    most_bytes: int = MOST_BYTES,
) -> BoundedResponse:
    """`body` is sent as JSON. Raises RequestFailed and nothing else."""
    headers = {
        "Accept-Encoding": "identity"
    }  # what is packed nonetheless is not unpacked: a few bytes may be gigabytes
    content = None
    try:
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = orjson.dumps(body)
        async with (
            asyncio.timeout(timeout_s),
            client.stream(method, url, headers=headers, content=content, timeout=timeout_s) as reply,
        ):
            read = bytearray()
            async for part in reply.aiter_raw():
                read += part
                if len(read) > most_bytes:
                    raise RequestFailed(f"its answer is larger than {most_bytes >> 10} KiB")
            return BoundedResponse(reply.status_code, bytes(read))
    except RequestFailed:
        raise
    except TimeoutError as error:
        raise RequestFailed(f"it gave no whole answer within {timeout_s:g} s") from error
    except Exception as error:  # httpx, and below it h11, anyio, ssl and idna, have many
        raise RequestFailed(f"{type(error).__name__} {error}".strip()) from error
