"""What is read out of an endpoint's answer, by the paths it was registered with. Pure."""

from functools import lru_cache
from typing import Any

import jsonpath

from manyeyes.config.custom_endpoint import Endpoint


class NoAnswer(ValueError):
    """The path leads to nothing, or to what is no text."""


@lru_cache(maxsize=2048)
def _compiled(path: str) -> Any:
    return jsonpath.compile(path, strict=True)


def _found(path: str, document: Any) -> list[Any]:
    # The library would read a text as JSON once more.
    if not isinstance(document, dict | list):
        return []
    try:
        return list(_compiled(path).findall(document))
    except (jsonpath.JSONPathError, RecursionError, TypeError, ValueError) as error:
        raise NoAnswer(f"{path} cannot be followed in it: {' '.join(str(error).split())[:200]}") from error


def _found_if_any(path: str, document: Any) -> list[Any]:
    """For what an answer can do without."""
    try:
        return _found(path, document)
    except NoAnswer:
        return []


def text(path: str, document: Any) -> str | None:
    """The text at `path`, several matches joined; None where there is none. Raises NoAnswer for what is no text."""
    found = [value for value in _found(path, document) if value is not None]
    if any(isinstance(value, dict | list) for value in found):
        raise NoAnswer(f"{path} leads to a {type(found[0]).__name__}, not to text")
    return "".join(value if isinstance(value, str) else str(value) for value in found) if found else None


def usage(endpoint: Endpoint, document: Any) -> dict[str, int] | None:
    """OpenAI's usage, where both numbers are there."""
    asked, answered = (
        _number(path, document) for path in (endpoint.usage.prompt_tokens, endpoint.usage.completion_tokens)
    )
    if asked is None or answered is None:
        return None
    return {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}


def finish_reason(endpoint: Endpoint, document: Any) -> str | None:
    """stop or length; None where the endpoint does not say."""
    if endpoint.finish_reason is None:
        return None
    said = [value for value in _found_if_any(endpoint.finish_reason, document) if isinstance(value, str)]
    if not said:
        return None
    return "length" if any(word in said[0].lower() for word in ("length", "max")) else "stop"


def _number(path: str | None, document: Any) -> int | None:
    found = _found_if_any(path, document) if path else []
    one = found[0] if found else None
    return one if isinstance(one, int) and not isinstance(one, bool) and one >= 0 else None
