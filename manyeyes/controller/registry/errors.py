"""Answers of the controller's API that are errors, and how OpenAPI describes them."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from starlette.responses import JSONResponse

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
