"""An answer that is an error, in the form that OpenAI's API gives them: the controller's API and the adapter raise it."""

from typing import Any

import orjson


class ApiError(Exception):
    """Ends a request. `code` is what a program can act on, `param` the field it is about."""

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
