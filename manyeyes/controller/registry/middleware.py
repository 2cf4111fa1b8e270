"""Who may call: changes want the admin key from everybody, and from outside reads want it too.

nginx marks what comes through the gateway with a header, and takes a client's own one away by setting it.
"""

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


def not_found(word: str, name: str, there: Sequence[str], most: int = 20) -> ApiError:
    """404 for an engine, pool or model, with the names there are for people who mistyped."""
    rest = f" and {len(there) - most} more" if len(there) > most else ""
    names = (
        f"There {'is' if len(there) == 1 else 'are'}: {', '.join(there[:most])}{rest}."
        if there
        else "There is none yet."
    )
    return ApiError(404, f"{word}_not_found", f"There is no {word} '{name[:40]}'. {names}")


class ErrorDetail(BaseModel):
    """What went wrong and what to do next."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """Every answer that is not 2xx."""

    error: ErrorDetail


def error_response(error: ApiError, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(error.document, error.status, headers)


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: what a call may be refused with."""
    return {status: {"model": ErrorBody, "description": MEANINGS[status]} for status in statuses}


MEANINGS = {
    401: "The admin key is missing or wrong.",
    403: "There is no admin key on this host, or the address is not allowed.",
    404: "There is nothing of that name.",
    409: "It cannot be done as things are: the name is taken, or something depends on it.",
    413: "The body is larger than 1 MiB.",
    422: "The body does not say what is wanted; the sentence names the field.",
    507: "The disk does not take it; nothing was changed.",
}


ADMIN_KEY_FILE = "admin.key"
LEAST_CHARACTERS = 16
"""A file that is empty, or holds a word somebody tried out, lets nobody in."""


class NoAdminKey(Exception):
    """There is no key to compare with; the message says why and what to do."""


class AdminKey:
    """The key in the secrets folder, known to the controller only by reading it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / ADMIN_KEY_FILE

    def matches(self, given: str) -> bool:
        """Whether `given` is the key, in a time that does not depend on how much of it is right. Raises NoAdminKey."""
        return secrets.compare_digest(given.encode(), self._read().encode())

    def _read(self) -> str:
        try:
            key = self.file.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            raise NoAdminKey(
                f"There is no admin key, so nothing can be changed by API. `make up` makes one in secrets/{ADMIN_KEY_FILE}."
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise NoAdminKey(
                f"The admin key in secrets/{ADMIN_KEY_FILE} cannot be read ({type(error).__name__}), so nothing can be changed by API. "
                "`make doctor` says how to open it to the controller."
            ) from error
        if len(key) < LEAST_CHARACTERS:
            raise NoAdminKey(
                f"The admin key in secrets/{ADMIN_KEY_FILE} has fewer than {LEAST_CHARACTERS} characters, so nothing can be changed by API. "
                "Remove the file, and `make up` makes one."
            )
        return key


log = structlog.get_logger()
OUTSIDE = "x-manyeyes-outside"
READS = frozenset({"GET", "HEAD"})
MOST_BODY_BYTES = 1 << 20
TOO_LARGE = ApiError(413, "request_too_large", "The body is larger than 1 MiB, which no call of this API needs.")
REALM = 'Basic realm="ManyEyes administration: any name, and the admin key as the password", charset="UTF-8"'


class AdminAuthMiddleware:
    """Around the whole application: no path can be forgotten."""

    def __init__(self, app: ASGIApp, key: AdminKey) -> None:
        self.app = app
        self.key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers, reads = Headers(scope=scope), scope["method"] in READS
        if OUTSIDE in headers or not reads:
            try:
                self._check(headers.get("authorization", ""), reads)
            except ApiError as refusal:
                client = headers.get("x-forwarded-for") or (scope["client"] or [""])[0]
                log.warning(
                    "api_call_refused",
                    method=scope["method"],
                    path=scope["path"][:200],
                    code=refusal.code,
                    client=client[:100],
                )
                asks = {"WWW-Authenticate": REALM if reads else "Bearer"} if refusal.status == 401 else None
                return await error_response(refusal, asks)(scope, receive, send)
        return await self._limit_body(headers.get("content-length", "0"), scope, receive, send)

    async def _limit_body(self, length: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Reads at most 1 MiB of a body, whatever length it said it has."""
        if length.isdecimal() and int(length) > MOST_BODY_BYTES:
            return await error_response(TOO_LARGE)(scope, receive, send)
        read = 0

        async def receive_some() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > MOST_BODY_BYTES:
                # FastAPI takes any other exception while it reads a body for a body that is no JSON.
                raise HTTPException(413)
            return message

        return await self.app(scope, receive_some, send)

    def _check(self, authorization: str, reads: bool) -> None:
        given = _bearer(authorization)
        if given is None and reads:
            # A browser that opens /api/docs. It sends its password along with whatever a page elsewhere makes it send, so
            # a change wants the key in a header that only a program sets.
            given = _password(authorization)
        if given is None:
            raise ApiError(
                401,
                "missing_admin_key",
                "This call wants the admin key, as `Authorization: Bearer KEY`; `manyeyes admin-key` prints it.",
            )
        try:
            right = self.key.matches(given)
        except NoAdminKey as error:
            raise ApiError(403, "no_admin_key", str(error)) from error
        if not right:
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
