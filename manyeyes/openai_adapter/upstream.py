"""Asks one endpoint. Every wait has a deadline and every answer a largest size; what goes wrong becomes an ApiError."""

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
    """A part of an answer, or all of it."""

    text: str = ""
    usage: dict[str, int] | None = None
    finish_reason: str | None = None


class EndpointClient:
    """One endpoint, with its connections."""

    def __init__(self, endpoint: Endpoint, limits: Adapter, secrets: Path) -> None:
        self.endpoint = endpoint
        self.limits = limits
        self.secrets = secrets
        self._client: httpx.AsyncClient | None = None

    async def close(self) -> None:
        if self._client:
            await self._client.aclose()

    async def whole(self, body: Any) -> AnswerPart:
        """The answer in one piece. Raises ApiError."""
        async with self._asked(self.endpoint.url, body) as response:
            raw = b"".join([part async for part in self._bounded(response)])
        try:
            document = orjson.loads(raw)
            text = response_mapping.extract_text(self.endpoint.answer, document)
        except ValueError as error:
            raise _unreadable(
                str(error) if isinstance(error, ExtractionError) else f"it is no JSON: {_start(raw)}"
            ) from error
        if text is None:
            raise _unreadable(f"{self.endpoint.answer} leads to nothing in {_start(raw)}")
        return AnswerPart(
            text,
            response_mapping.extract_usage(self.endpoint, document),
            response_mapping.extract_finish_reason(self.endpoint, document),
        )

    async def pieces(self, body: Any) -> AsyncGenerator[AnswerPart, None]:
        """The answer as it comes. Raises ApiError, also between pieces."""
        stream = self.endpoint.stream
        assert stream
        events = StreamParser()
        spoke = False
        async with self._asked(stream.url or self.endpoint.url, body) as response:
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
            raise _unreadable(f"no event had a text at {stream.delta}")

    def _piece(self, path: str, document: Any) -> AnswerPart:
        return AnswerPart(
            response_mapping.extract_text(path, document) or "",
            response_mapping.extract_usage(self.endpoint, document),
            response_mapping.extract_finish_reason(self.endpoint, document),
        )

    @asynccontextmanager
    async def _asked(self, url: str, body: Any) -> AsyncIterator[httpx.Response]:
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
            raise ApiError(504, "endpoint_timeout", "The endpoint accepted no connection in time.") from error
        except httpx.TimeoutException as error:
            raise ApiError(504, "endpoint_timeout", "The endpoint gave no answer in time.") from error
        except httpx.ConnectError as error:
            raise ApiError(
                502, "endpoint_unreachable", f"The endpoint cannot be connected to: {_start(str(error).encode())}."
            ) from error
        except (httpx.InvalidURL, UnicodeError) as error:
            raise ApiError(502, "endpoint_unreachable", "The endpoint's address or a header cannot be used.") from error
        except httpx.HTTPError as error:
            raise ApiError(502, "endpoint_lost", f"The endpoint broke off: {type(error).__name__}.") from error

    async def _refuse(self, response: httpx.Response) -> None:
        status = response.status_code
        said = b""
        async for part in response.aiter_raw():
            said += part
            if len(said) >= SHOWN:
                break
        if status in (401, 403):
            raise ApiError(502, "endpoint_refuses_key", f"The endpoint refuses the key it was given ({status}).")
        if status == 429:
            raise ApiError(429, "overloaded", "The endpoint is at its limit. Try again after Retry-After seconds.")
        if 300 <= status < 400:
            raise ApiError(
                502,
                "endpoint_redirects",
                f"The endpoint sends the request elsewhere ({status}), which is not followed.",
            )
        if status in (400, 413, 422):
            raise ApiError(
                400, "endpoint_refuses_request", f"The endpoint refuses the request ({status}): {_start(said)}"
            )
        raise ApiError(502, "endpoint_failed", f"The endpoint answered {status}: {_start(said)}")

    async def _bounded(self, response: httpx.Response) -> AsyncIterator[bytes]:
        read, most = 0, self.limits.max_answer_mb << 20
        async for part in response.aiter_bytes():
            read += len(part)
            if read > most:
                raise ApiError(
                    502,
                    "endpoint_answer_too_large",
                    f"The endpoint's answer exceeds {self.limits.max_answer_mb} MiB (adapter.max_answer_mb).",
                )
            yield part

    def _headers(self) -> dict[str, str]:
        return {
            name: SECRET.sub(lambda found: self._secret(found[1]), value)
            for name, value in self.endpoint.headers.items()
        }

    def _secret(self, name: str) -> str:
        """Read anew for each request: another key is used at once."""
        try:
            text = (self.secrets / name).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ApiError(502, "secret_unreadable", f"The adapter cannot read secrets/{name}.") from error
        if not text or any(character < " " for character in text):
            raise ApiError(502, "secret_unreadable", f"secrets/{name} wants one line, the key and nothing else.")
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
