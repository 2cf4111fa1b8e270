"""What a client is told when a request is not served: vLLM 0.32's words, statuses and types."""

from typing import Any

ELSEWHERE = "Please try again later or on a different instance."


class RequestError(Exception):
    """A request that gets an error instead of an answer."""

    def __init__(self, message: str, *, status: int = 400, kind: str = "BadRequestError", param: str | None = None):
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind = kind
        self.param = param

    def body(self) -> dict[str, Any]:
        """The JSON to answer with."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.status}}


def invalid(message: str, param: str | None = None) -> RequestError:
    """A body that is not of the right form. vLLM words the type of these (only these) with a blank."""
    return RequestError(f"1 validation error:\n  {message}", kind="Bad Request", param=param)


def wrong_value(message: str, param: str, value: object) -> RequestError:
    """A parameter of the right type with a value that cannot be."""
    return RequestError(f"{message} (parameter={param}, value={value})", param=param)


def unknown_model(name: str, served: tuple[str, ...]) -> RequestError:
    """A model that this engine does not serve."""
    message = f"The model `{name}` does not exist. Valid aliases: {', '.join(served)}."
    return RequestError(message, status=404, kind="NotFoundError", param="model")


def shutting_down() -> RequestError:
    """What vLLM says between SIGTERM and its end."""
    return RequestError("cannot schedule new futures after shutdown", status=500, kind="InternalServerError")


def engine_dead() -> RequestError:
    """What every request gets from the death of the engine core to the end of the process."""
    message = "EngineCore encountered an issue. See stack trace (above) for the root cause."
    return RequestError(message, status=500, kind="InternalServerError")


def on_command(status: int) -> RequestError:
    """A fault that somebody switched on."""
    return RequestError("This engine is emulated and fails on command.", status=status, kind="InternalServerError")


def busy() -> RequestError:
    """More requests than --max-num-queued-reqs; vLLM sends no Retry-After."""
    message = "The engine is currently busy and cannot accept new requests."
    return RequestError(f"{message} {ELSEWHERE}", status=503, kind="Service Unavailable")


def backlog() -> RequestError:
    """More prompt tokens than --max-num-queued-tokens."""
    message = "The engine has reached its prefill token backlog limit."
    return RequestError(f"{message} {ELSEWHERE}", status=503, kind="Service Unavailable")


def weightless() -> RequestError:
    """It slept at level 2, and its weights were not read again. vLLM would answer 200 with noise; this can be tested."""
    message = "This engine is emulated: after sleep level 2 its weights were not read again."
    return RequestError(message, status=500, kind="InternalServerError")
