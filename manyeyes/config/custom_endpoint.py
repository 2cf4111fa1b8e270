"""Configuration of an endpoint that does not implement OpenAI's API: its request template and where its response has
the answer."""

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any

import jsonpath
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, field_validator

from manyeyes.config.fields import FileName, IsUrl, Section

PLACEHOLDERS = ("USER_PROMPT", "MODEL_NAME", "MODEL_TEMPERATURE", "IMAGE_URL", "MAX_TOKENS", "STREAM")
WHOLE_VALUE_PLACEHOLDERS = frozenset({"MODEL_TEMPERATURE", "MAX_TOKENS", "STREAM"})
"""These placeholders become a number or true/false, so each must be a whole value."""
PLACEHOLDER = re.compile(r"\{(" + "|".join(PLACEHOLDERS) + r")\}")
_ANY_PLACEHOLDER = re.compile(r"\{([A-Z][A-Z_]+)\}")
_STRING_OR_BARE = re.compile(r'"(?:[^"\\]|\\.)*"|\{[A-Z][A-Z_]+\}')
SECRET = re.compile(r"\{SECRET:([A-Za-z0-9][A-Za-z0-9._-]*)\}")
FORBIDDEN_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer"})
MAX_LEVELS = 30


def _parse_template(value: Any) -> Any:
    """Parses a template that is given as text. Placeholders may be written without quotes, like numbers."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(_STRING_OR_BARE.sub(lambda match: match[0] if match[0][0] == '"' else f'"{match[0]}"', value))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"a JSON document ({error})") from error


def _check_template(template: Any) -> Any:
    if not isinstance(template, dict | list):
        raise ValueError("a JSON document with {USER_PROMPT} in it")
    if _depth(template) > MAX_LEVELS:
        raise ValueError(f"a JSON document of at most {MAX_LEVELS} levels")
    if not _is_json(template):
        raise ValueError("a JSON document: keys are text, and values text, numbers, true, false or null")
    texts = list(_texts(template))
    for text in texts:
        for name in _ANY_PLACEHOLDER.findall(text):
            if name not in PLACEHOLDERS:
                raise ValueError(
                    f"a template without {{{name}}} (placeholders: {', '.join(f'{{{placeholder}}}' for placeholder in PLACEHOLDERS)})"
                )
            if name in WHOLE_VALUE_PLACEHOLDERS and text != f"{{{name}}}":
                raise ValueError(f"{{{name}}} as a whole value, because it becomes a number or true/false")
    if not any("{USER_PROMPT}" in text for text in texts):
        raise ValueError("a JSON document with {USER_PROMPT} in it")
    return template


def _depth(value: Any, level: int = 0) -> int:
    if level > MAX_LEVELS or not isinstance(value, dict | list):
        return level
    return max(
        (_depth(child, level + 1) for child in (value.values() if isinstance(value, dict) else value)), default=level
    )


def _is_json(template: Any) -> bool:
    """Whether JSON can represent the template. YAML also allows dates, and numbers as keys."""
    try:
        return bool(json.loads(json.dumps(template, allow_nan=False)) == template)
    except (TypeError, ValueError):
        return False


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for child in value.values() if isinstance(value, dict) else value:
            yield from _texts(child)


def _path(text: str) -> str:
    try:
        jsonpath.compile(text, strict=True)
    except (jsonpath.JSONPathError, RecursionError) as error:
        raise ValueError(f"a JSONPath such as $.choices[0].text ({' '.join(str(error).split())[:120]})") from error
    return text


Template = Annotated[Any, BeforeValidator(_parse_template), AfterValidator(_check_template)]
AnswerPath = Annotated[str, StringConstraints(min_length=1, max_length=500), AfterValidator(_path)]
EndpointUrl = Annotated[
    str,
    StringConstraints(max_length=2000, pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?([/?][\x21\x24-\x7e]*)?$"),
    IsUrl,
]


class UsagePaths(Section):
    """JSONPath of the token counts in a response, or in the last event of a stream."""

    prompt_tokens: AnswerPath | None = None
    """JSONPath of the number of prompt tokens."""
    completion_tokens: AnswerPath | None = None
    """JSONPath of the number of completion tokens."""


class Streaming(Section):
    """Settings for an endpoint that streams server-sent events or one JSON document per line."""

    delta: AnswerPath
    """JSONPath of the piece of the answer in an event."""
    url: EndpointUrl | None = None
    """URL for streamed requests. null: the same URL as without streaming; the endpoint then needs {STREAM} in the
    template."""


class Endpoint(Section):
    """An external endpoint that does not implement OpenAI's API. The adapter translates requests and responses."""

    url: EndpointUrl
    """URL that receives the requests, by POST."""
    template: Template
    """The request body, a JSON document. A string of it must contain {USER_PROMPT}. Strings may also contain
    {MODEL_NAME} and {IMAGE_URL}. {MODEL_TEMPERATURE}, {MAX_TOKENS} and {STREAM} must be whole values; they become a
    number or true/false."""
    answer: AnswerPath
    """JSONPath (RFC 9535) of the text in the response. Several matches are joined."""
    headers: dict[
        Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")],
        Annotated[str, StringConstraints(max_length=4000, pattern=r"^[\x20-\x7e]*$")],
    ] = Field({}, max_length=30)
    """Headers of every request. {SECRET:cloud.key} is replaced by the content of that file in the secrets folder."""
    model: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    """Value of {MODEL_NAME}. null: the pool's `model`."""
    stream: Streaming | None = None
    """null: the endpoint does not stream; a client that requests a stream gets the whole answer in one event."""
    usage: UsagePaths = UsagePaths()
    """Where the response has token counts. Without them, answers have no `usage`."""
    finish_reason: AnswerPath | None = None
    """JSONPath of the finish reason. A value that contains `length` or `max` becomes length; any other value becomes
    stop."""
    ca_file: FileName | None = None
    """A file in the secrets folder with the trusted CA certificates. null: the system's CA certificates."""

    @field_validator("headers")
    @classmethod
    def _headers_are_not_the_connections(cls, headers: dict[str, str]) -> dict[str, str]:
        for name in headers:
            if name.lower() in FORBIDDEN_HEADERS:
                raise ValueError(f"headers without {name}, which the HTTP client sets")
        return headers

    @property
    def secret_files(self) -> list[str]:
        """Names of the files in the secrets folder that this endpoint uses."""
        names = [name for value in self.headers.values() for name in SECRET.findall(value)]
        return [*names, *([self.ca_file] if self.ca_file else [])]

    @property
    def accepts_images(self) -> bool:
        return any("{IMAGE_URL}" in text for text in _texts(self.template))


class Adapter(Section):
    """The process that offers OpenAI's API for endpoints without it (engines with an `endpoint`)."""

    enabled: bool | None = None
    """Whether the adapter is started. null: only if an engine in this file has an `endpoint`. Set true to register
    endpoints through the API."""
    first_port: int = Field(9100, ge=1024, le=65_000)
    """First port of the adapter. Each endpoint has a separate port, so that the gateway can address it like an
    engine."""
    ports: int = Field(64, ge=1, le=500)
    """Number of ports, which is the maximum number of endpoints."""
    connect_timeout_s: float = Field(10, gt=0, le=120)
    """Timeout for connecting to an endpoint, in seconds."""
    silence_timeout_s: float = Field(300, gt=0)
    """Timeout between two reads from an endpoint, in seconds."""
    answer_timeout_s: float = Field(600, gt=0)
    """Timeout for a whole answer, streamed or not, in seconds."""
    max_answer_mb: int = Field(16, ge=1, le=1024)
    """Maximum size of an answer, in MiB. A larger answer is cut off with an error."""
