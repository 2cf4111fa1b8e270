"""Authentication: changes always require the admin key; reads require it when they come through the gateway.

nginx marks requests through the gateway with a header. It sets this header itself, so a client cannot choose its value.
"""

import asyncio
import base64
import binascii
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from manyeyes.openai_error import ApiError


def not_found(word: str, name: str, known: Sequence[str], max_shown: int = 20) -> ApiError:
    """A 404 error for an engine, pool or annotation. The message lists the names that exist."""
    rest = f" and {len(known) - max_shown} more" if len(known) > max_shown else ""
    names = (
        f"There {'is' if len(known) == 1 else 'are'}: {', '.join(known[:max_shown])}{rest}."
        if known
        else "There is none yet."
    )
    return ApiError(404, f"{word}_not_found", f"There is no {word} '{name[:40]}'. {names}")


def not_persisted() -> ApiError:
    """A 507 error for a change that could not be written to the state folder."""
    return ApiError(
        507,
        "not_persisted",
        "Could not persist the change: writing to the state folder failed. Nothing was changed. "
        "See the controller's log.",
    )


class ErrorDetail(BaseModel):
    """What went wrong and what to do next."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """The body of every response that is not 2xx."""

    error: ErrorDetail


def error_response(error: ApiError, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(error.document, error.status, headers)


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error responses of a call, for OpenAPI."""
    return {status: {"model": ErrorBody, "description": MEANINGS[status]} for status in statuses}


MEANINGS = {
    401: "The admin key is missing or wrong.",
    403: "There is no admin key on this host, or the address is not allowed.",
    404: "The name does not exist.",
    409: "The change conflicts with the current state: the name is taken, or something depends on it.",
    413: "The body is larger than 1 MiB.",
    422: "The body is invalid; the message names the field.",
    507: "The change could not be written to disk; nothing was changed.",
}


ADMIN_KEY_FILE = "admin.key"
LEAST_CHARACTERS = 16
"""A shorter key is rejected: the file may be empty or hold a word from a test."""


class NoAdminKey(Exception):
    """There is no usable admin key; the message says why and what to do."""


class AdminKey:
    """The admin key in the secrets folder. It is read for each comparison."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / ADMIN_KEY_FILE

    def matches(self, candidate: str) -> bool:
        """Compares `candidate` with the key in constant time. Raises NoAdminKey."""
        return secrets.compare_digest(candidate.encode(), self._read().encode())

    def _read(self) -> str:
        try:
            key = self.file.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            raise NoAdminKey(
                "There is no admin key, so the API cannot change anything. "
                f"Run `make up` to create it in secrets/{ADMIN_KEY_FILE}."
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise NoAdminKey(
                f"The admin key in secrets/{ADMIN_KEY_FILE} cannot be read ({type(error).__name__}), "
                "so the API cannot change anything. `make doctor` shows how to make it readable for the controller."
            ) from error
        if len(key) < LEAST_CHARACTERS:
            raise NoAdminKey(
                f"The admin key in secrets/{ADMIN_KEY_FILE} has fewer than {LEAST_CHARACTERS} characters, "
                "so the API cannot change anything. Remove the file and run `make up` to create a new key."
            )
        return key


log = structlog.get_logger()
OUTSIDE = "x-manyeyes-outside"
READS = frozenset({"GET", "HEAD"})
MAX_BODY_BYTES = 1 << 20
TOO_LARGE = ApiError(413, "request_too_large", "The body is larger than 1 MiB, which no call of this API needs.")
REALM = 'Basic realm="ManyEyes administration: any name, and the admin key as the password", charset="UTF-8"'


class AdminAuthMiddleware:
    """Checks the admin key. It wraps the whole application, so that no path is unprotected."""

    def __init__(self, app: ASGIApp, key: AdminKey) -> None:
        self.app = app
        self.key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers, reads = Headers(scope=scope), scope["method"] in READS
        if OUTSIDE in headers or not reads:
            try:
                await self._check(headers.get("authorization", ""), reads)
            except ApiError as refusal:
                client = headers.get("x-forwarded-for") or (scope["client"] or [""])[0]
                log.warning(
                    "api_call_refused",
                    method=scope["method"],
                    path=scope["path"][:200],
                    code=refusal.code,
                    client=client[:100],
                )
                challenge = {"WWW-Authenticate": REALM if reads else "Bearer"} if refusal.status == 401 else None
                return await error_response(refusal, challenge)(scope, receive, send)
        return await self._limit_body(headers.get("content-length", "0"), scope, receive, send)

    async def _limit_body(self, length: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Reads at most 1 MiB of a body, regardless of its Content-Length."""
        if length.isdecimal() and int(length) > MAX_BODY_BYTES:
            return await error_response(TOO_LARGE)(scope, receive, send)
        read = 0

        async def receive_some() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > MAX_BODY_BYTES:
                # FastAPI reports any other exception during the read as invalid JSON.
                raise HTTPException(413)
            return message

        return await self.app(scope, receive_some, send)

    async def _check(self, authorization: str, reads: bool) -> None:
        key = _bearer(authorization)
        if key is None and reads:
            # A browser that opens /api/docs sends a password. It also sends it with requests that other sites trigger,
            # so changes require the key in a header that only a program sets.
            key = _password(authorization)
        if key is None:
            raise ApiError(
                401,
                "missing_admin_key",
                "This call requires the admin key, as `Authorization: Bearer KEY`; `manyeyes admin-key` prints it.",
            )
        try:
            # In a thread: a hanging disk must not block DNS.
            is_admin_key = await asyncio.to_thread(self.key.matches, key)
        except NoAdminKey as error:
            raise ApiError(403, "no_admin_key", str(error)) from error
        if not is_admin_key:
            raise ApiError(401, "wrong_admin_key", "This is not the admin key; `manyeyes admin-key` prints it.")


def _bearer(authorization: str) -> str | None:
    scheme, _, rest = authorization.partition(" ")
    return rest.strip() if scheme.lower() == "bearer" and rest.strip() else None


def _password(authorization: str) -> str | None:
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(rest, validate=True).decode().partition(":")[2] or None
    except (binascii.Error, UnicodeDecodeError):
        return None
