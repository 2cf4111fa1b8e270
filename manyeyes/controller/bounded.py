"""One HTTP request with a timeout and a maximum response size. Redirects are not followed."""

import asyncio
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

MAX_BYTES = 4 << 20


class RequestFailed(Exception):
    """There is no usable response; the message says why."""


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
    max_bytes: int = MAX_BYTES,
) -> BoundedResponse:
    """Sends the request; `body` is sent as JSON. Raises only RequestFailed."""
    # A body that is compressed anyway is not decompressed: a few bytes may expand to gigabytes.
    headers = {"Accept-Encoding": "identity"}
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
                if len(read) > max_bytes:
                    raise RequestFailed(f"the response is larger than {max_bytes >> 10} KiB")
            return BoundedResponse(reply.status_code, bytes(read))
    except RequestFailed:
        raise
    except TimeoutError as error:
        raise RequestFailed(f"no complete response within {timeout_s:g} s") from error
    except Exception as error:  # httpx, and below it h11, anyio, ssl and idna, raise many types
        raise RequestFailed(f"{type(error).__name__} {error}".strip()) from error
