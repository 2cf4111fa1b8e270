"""An endpoint that does not speak OpenAI's API: how it is asked, and where its answer stands. The adapter reads this."""

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any

import jsonpath
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, field_validator

from manyeyes.config.fields import FileName, IsUrl, Section

PLACEHOLDERS = ("USER_PROMPT", "MODEL_NAME", "MODEL_TEMPERATURE", "IMAGE_URL", "MAX_TOKENS", "STREAM")
ALONE = frozenset({"MODEL_TEMPERATURE", "MAX_TOKENS", "STREAM"})
"""They become a number or true/false, so nothing may stand beside them."""
PLACEHOLDER = re.compile(r"\{(" + "|".join(PLACEHOLDERS) + r")\}")
_ANY_PLACEHOLDER = re.compile(r"\{([A-Z][A-Z_]+)\}")
_STRING_OR_BARE = re.compile(r'"(?:[^"\\]|\\.)*"|\{[A-Z][A-Z_]+\}')
SECRET = re.compile(r"\{SECRET:([A-Za-z0-9][A-Za-z0-9._-]*)\}")
FORBIDDEN_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer"})
DEEPEST = 30


def _parsed(value: Any) -> Any:
    """A template that was given as text is read as JSON; placeholders may stand in it without quotes, as numbers do."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(_STRING_OR_BARE.sub(lambda found: found[0] if found[0][0] == '"' else f'"{found[0]}"', value))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"a JSON document ({error})") from error


def _checked(template: Any) -> Any:
    if not isinstance(template, dict | list):
        raise ValueError("a JSON document with {USER_PROMPT} in it")
    if _depth(template) > DEEPEST:
        raise ValueError(f"a JSON document of at most {DEEPEST} levels")
    if not _is_json(template):
        raise ValueError("a JSON document: keys are text, and values text, numbers, true, false or null")
    texts = list(_texts(template))
    for text in texts:
        for name in _ANY_PLACEHOLDER.findall(text):
            if name not in PLACEHOLDERS:
                raise ValueError(
                    f"placeholders out of {', '.join(f'{{{one}}}' for one in PLACEHOLDERS)}, not {{{name}}}"
                )
            if name in ALONE and text != f"{{{name}}}":
                raise ValueError(f"{{{name}}} alone as a value, since it becomes a number or true/false")
    if not any("{USER_PROMPT}" in text for text in texts):
        raise ValueError("{USER_PROMPT} in it")
    return template


def _depth(value: Any, level: int = 0) -> int:
    if level > DEEPEST or not isinstance(value, dict | list):
        return level
    return max(
        (_depth(one, level + 1) for one in (value.values() if isinstance(value, dict) else value)), default=level
    )


def _is_json(template: Any) -> bool:
    """YAML knows dates, and keys that are numbers."""
    try:
        return bool(json.loads(json.dumps(template, allow_nan=False)) == template)
    except (TypeError, ValueError):
        return False


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def _path(text: str) -> str:
    try:
        jsonpath.compile(text, strict=True)
    except (jsonpath.JSONPathError, RecursionError) as error:
        raise ValueError(f"a JSONPath such as $.choices[0].text ({' '.join(str(error).split())[:120]})") from error
    return text


Template = Annotated[Any, BeforeValidator(_parsed), AfterValidator(_checked)]
AnswerPath = Annotated[str, StringConstraints(min_length=1, max_length=500), AfterValidator(_path)]
EndpointUrl = Annotated[
    str,
    StringConstraints(max_length=2000, pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?([/?][\x21\x24-\x7e]*)?$"),
    IsUrl,
]


class UsagePaths(Section):
    """Where an answer, or the last event of a stream, counts tokens (JSONPath)."""

    prompt_tokens: AnswerPath | None = None
    """Tokens of the question."""
    completion_tokens: AnswerPath | None = None
    """Tokens of the answer."""


class Streaming(Section):
    """How the endpoint streams: server-sent events or one JSON document per line."""

    delta: AnswerPath
    """Where an event holds its piece of the answer (JSONPath)."""
    url: EndpointUrl | None = None
    """null: the same as without streaming; {STREAM} in the template then tells the endpoint."""


class Endpoint(Section):
    """An endpoint elsewhere that does not speak OpenAI's API. The adapter speaks it on its behalf."""

    url: EndpointUrl
    """Where it takes questions, by POST."""
    template: Template
    """The body it wants, a JSON document. {USER_PROMPT} must stand in a string of it; {MODEL_NAME}, {IMAGE_URL}, {MODEL_TEMPERATURE},
    {MAX_TOKENS} and {STREAM} may. The last three stand alone and become a number or true/false."""
    answer: AnswerPath
    """Where its response holds the text (JSONPath, RFC 9535); several matches are joined."""
    headers: dict[
        Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")],
        Annotated[str, StringConstraints(max_length=4000, pattern=r"^[\x20-\x7e]*$")],
    ] = Field({}, max_length=30)
    """Sent with every request. {SECRET:cloud.key} stands for the content of a file in the secrets folder."""
    model: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    """What {MODEL_NAME} becomes. null: the pool's `model`."""
    stream: Streaming | None = None
    """null: it does not stream; a client that asks for a stream gets the whole answer in one piece."""
    usage: UsagePaths = UsagePaths()
    """Where it counts tokens; where it does not, answers carry no usage."""
    finish_reason: AnswerPath | None = None
    """Where it says why it stopped (JSONPath): a word with `length` or `max` in it means length, any other stop."""
    ca_file: FileName | None = None
    """A file in the secrets folder with the certificates to trust. null: those the system trusts."""

    @field_validator("headers")
    @classmethod
    def _headers_are_not_the_connections(cls, headers: dict[str, str]) -> dict[str, str]:
        for name in headers:
            if name.lower() in FORBIDDEN_HEADERS:
                raise ValueError(f"headers of the request, and {name} belongs to the connection")
        return headers

    @property
    def secret_files(self) -> list[str]:
        """Files of the secrets folder that it names."""
        named = [name for value in self.headers.values() for name in SECRET.findall(value)]
        return [*named, *([self.ca_file] if self.ca_file else [])]

    @property
    def takes_pictures(self) -> bool:
        return any("{IMAGE_URL}" in text for text in _texts(self.template))


class Adapter(Section):
    """The process that speaks OpenAI's API for endpoints that do not (engines with an `endpoint`)."""

    enabled: bool | None = None
    """Whether it is started. null: when an engine in this file has an `endpoint`. For endpoints registered by API: true."""
    first_port: int = Field(9100, ge=1024, le=65_000)
    """Every endpoint has a port of its own, from this one on, so that the gateway tells them apart as it does engines."""
    ports: int = Field(64, ge=1, le=500)
    """How many endpoints there may be."""
    connect_timeout_s: float = Field(10, gt=0, le=120)
    """Longest wait for an endpoint to accept a connection."""
    silence_timeout_s: float = Field(300, gt=0)
    """Longest silence of an endpoint."""
    answer_timeout_s: float = Field(600, gt=0)
    """Longest time for one answer, streamed or not."""
    max_answer_mb: int = Field(16, ge=1, le=1024)
    """Largest answer, in MiB; more is cut off with an error."""
