"""Errors in the format of OpenAI's API, for the controller's API and the adapter."""

from typing import Any

import orjson


class ApiError(Exception):
    """An error response. `code` is for programs, and `param` is the field that caused the error."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param

    @property
    def document(self) -> dict[str, Any]:
        kind = {429: "rate_limit_error"}.get(
            self.status, "server_error" if self.status >= 500 else "invalid_request_error"
        )
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def body(self) -> bytes:
        return orjson.dumps(self.document)
