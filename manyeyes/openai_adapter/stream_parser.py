"""A stream of bytes, as the JSON documents in it: server-sent events, or one document per line. Pure but for its memory."""

from collections.abc import Iterator
from typing import Any

import orjson

DONE = "[DONE]"
LONGEST_LINE_BYTES = 1 << 20


class Unreadable(ValueError):
    """What came is neither."""


class Events:
    """Takes bytes as they come."""

    def __init__(self) -> None:
        self.done = False
        self._rest = b""
        self._data: list[str] = []

    def take(self, piece: bytes) -> Iterator[Any]:
        """The documents that are complete with these bytes. Raises Unreadable."""
        lines = (self._rest + piece).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > LONGEST_LINE_BYTES:
            raise Unreadable("a line of it is longer than 1 MiB")
        for line in lines:
            yield from self._line(line)

    def end(self) -> Iterator[Any]:
        """What is left when no more bytes come: a last line may lack its end."""
        rest, self._rest = self._rest, b""
        yield from self._line(rest)
        yield from self._line(b"")

    def _line(self, raw: bytes) -> Iterator[Any]:
        try:
            line = raw.decode().rstrip("\r")
        except UnicodeDecodeError as error:
            raise Unreadable("it is not UTF-8") from error
        if not line:
            data, self._data = "\n".join(self._data), []
            if data:
                yield from self._document(data)
        elif line.startswith("data:"):
            self._data.append(line[5:].removeprefix(" "))
        elif line[0] in "{[":
            yield from self._document(line)
        # Anything else of an event (its name, its id, a comment) says nothing about the answer.

    def _document(self, text: str) -> Iterator[Any]:
        if self.done:
            return
        if text.strip() == DONE:
            self.done = True
            return
        try:
            yield orjson.loads(text)
        except ValueError as error:
            raise Unreadable(f"an event is no JSON: {text[:100]}") from error
