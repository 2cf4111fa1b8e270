"""Client of one endpoint. Every operation has a timeout, answer sizes are capped, and errors are raised as ApiError."""

import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson

from manyeyes.config.custom_endpoint import SECRET, Adapter, Endpoint
from manyeyes.openai_adapter import response_mapping
from manyeyes.openai_adapter.response_mapping import ExtractionError, StreamError, StreamParser
from manyeyes.openai_error import ApiError

SHOWN = 300


@dataclass
class AnswerPart:
    """A part of an answer, or a complete answer."""

    text: str = ""
    usage: dict[str, int] | None = None
    finish_reason: str | None = None


class EndpointClient:
    """Client of one endpoint, with its connections."""

    def __init__(self, endpoint: Endpoint, limits: Adapter, secrets: Path) -> None:
        self.endpoint = endpoint
        self.limits = limits
        self.secrets = secrets
        self._client: httpx.AsyncClient | None = None

    async def close(self) -> None:
        if self._client:
            await self._client.aclose()

    async def whole(self, body: Any) -> AnswerPart:
        """The complete answer. Raises ApiError."""
        async with self._post(self.endpoint.url, body) as response:
            raw = b"".join([part async for part in self._bounded(response)])
        try:
            document = orjson.loads(raw)
            text = response_mapping.extract_text(self.endpoint.answer, document)
        except ValueError as error:
            raise _unreadable(
                str(error) if isinstance(error, ExtractionError) else f"it is not JSON: {_start(raw)}"
            ) from error
        if text is None:
            raise _unreadable(f"{self.endpoint.answer} selects nothing in {_start(raw)}")
        return AnswerPart(
            text,
            response_mapping.extract_usage(self.endpoint, document),
            response_mapping.extract_finish_reason(self.endpoint, document),
        )

    async def pieces(self, body: Any) -> AsyncGenerator[AnswerPart, None]:
        """The answer as it arrives. Raises ApiError, also between parts."""
        stream = self.endpoint.stream
        assert stream
        events = StreamParser()
        spoke = False
        async with self._post(stream.url or self.endpoint.url, body) as response:
            try:
                async for part in self._bounded(response):
                    for document in events.take(part):
                        piece = self._piece(stream.delta, document)
                        spoke = spoke or bool(piece.text)
                        yield piece
                    if events.done:
                        return
                for document in events.end():
                    piece = self._piece(stream.delta, document)
                    spoke = spoke or bool(piece.text)
                    yield piece
            except (StreamError, ExtractionError) as error:
                raise _unreadable(str(error)) from error
        if not spoke:
            raise _unreadable(f"no event had text at {stream.delta}")

    def _piece(self, path: str, document: Any) -> AnswerPart:
        return AnswerPart(
            response_mapping.extract_text(path, document) or "",
            response_mapping.extract_usage(self.endpoint, document),
            response_mapping.extract_finish_reason(self.endpoint, document),
        )

    @asynccontextmanager
    async def _post(self, url: str, body: Any) -> AsyncIterator[httpx.Response]:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "ManyEyes",
            "Accept-Encoding": "identity",
            **self._headers(),
        }
        content = orjson.dumps(body)
        try:
            async with self._connected().stream("POST", url, content=content, headers=headers) as response:
                if response.status_code != 200:
                    await self._refuse(response)
                yield response
        except httpx.ConnectTimeout as error:
            raise ApiError(504, "endpoint_timeout", "The endpoint did not accept a connection in time.") from error
        except httpx.TimeoutException as error:
            raise ApiError(504, "endpoint_timeout", "The endpoint did not answer in time.") from error
        except httpx.ConnectError as error:
            raise ApiError(
                502, "endpoint_unreachable", f"Cannot connect to the endpoint: {_start(str(error).encode())}."
            ) from error
        except (httpx.InvalidURL, UnicodeError) as error:
            raise ApiError(502, "endpoint_unreachable", "The endpoint's address or a header is invalid.") from error
        except httpx.HTTPError as error:
            raise ApiError(
                502, "endpoint_lost", f"The connection to the endpoint failed: {type(error).__name__}."
            ) from error

    async def _refuse(self, response: httpx.Response) -> None:
        status = response.status_code
        start = b""
        async for part in response.aiter_raw():
            start += part
            if len(start) >= SHOWN:
                break
        if status in (401, 403):
            raise ApiError(
                502, "endpoint_refuses_key", f"The endpoint rejected the key ({status}). The operator must replace it."
            )
        if status == 429:
            raise ApiError(
                429, "overloaded", "The endpoint is at its limit. Retry after the time in the Retry-After header."
            )
        if 300 <= status < 400:
            raise ApiError(
                502,
                "endpoint_redirects",
                f"The endpoint redirects the request ({status}). Redirects are not followed.",
            )
        if status in (400, 413, 422):
            raise ApiError(
                400, "endpoint_refuses_request", f"The endpoint rejected the request ({status}): {_start(start)}"
            )
        raise ApiError(502, "endpoint_failed", f"The endpoint answered {status}: {_start(start)}")

    async def _bounded(self, response: httpx.Response) -> AsyncIterator[bytes]:
        read, max_bytes = 0, self.limits.max_answer_mb << 20
        async for part in response.aiter_bytes():
            read += len(part)
            if read > max_bytes:
                raise ApiError(
                    502,
                    "endpoint_answer_too_large",
                    f"The endpoint's answer exceeds {self.limits.max_answer_mb} MiB (adapter.max_answer_mb).",
                )
            yield part

    def _headers(self) -> dict[str, str]:
        return {
            name: SECRET.sub(lambda match: self._secret(match[1]), value)
            for name, value in self.endpoint.headers.items()
        }

    def _secret(self, name: str) -> str:
        """The content of a secrets file. It is read for each request, so that a replaced key is used immediately."""
        try:
            text = (self.secrets / name).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ApiError(502, "secret_unreadable", f"The adapter cannot read secrets/{name}.") from error
        if not text or any(character < " " for character in text):
            raise ApiError(502, "secret_unreadable", f"secrets/{name}: expected one line that contains only the key.")
        return text

    def _connected(self) -> httpx.AsyncClient:
        if self._client is None:
            limits = self.limits
            try:
                trusted = ssl.create_default_context(
                    cafile=str(self.secrets / self.endpoint.ca_file) if self.endpoint.ca_file else None
                )
            except (OSError, ssl.SSLError) as error:
                raise ApiError(
                    502, "secret_unreadable", f"The adapter cannot read secrets/{self.endpoint.ca_file}."
                ) from error
            self._client = httpx.AsyncClient(
                verify=trusted,
                trust_env=False,
                follow_redirects=False,
                timeout=httpx.Timeout(
                    limits.silence_timeout_s, connect=limits.connect_timeout_s, pool=limits.connect_timeout_s
                ),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
            )
        return self._client


def _unreadable(why: str) -> ApiError:
    return ApiError(502, "endpoint_answer_unreadable", f"The endpoint's answer cannot be read: {why}")


def _start(raw: bytes) -> str:
    return " ".join(raw[:SHOWN].decode("utf-8", "replace").split())
