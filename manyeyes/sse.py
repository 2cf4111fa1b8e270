"""Parser for server-sent events: takes bytes as they arrive and returns the data of complete events.

Lines end with LF, CRLF or CR
(https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation). Event names, ids and
comments are ignored.
"""

import re

_LINE_END = re.compile(rb"\r\n|\n|\r")


class EventStreamParser:
    """Parses one stream. An event is returned as soon as its last byte arrives."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._ended_with_cr = False

    def feed(self, piece: bytes) -> list[bytes]:
        """Returns the data of the events that these bytes complete."""
        if self._ended_with_cr and piece:
            # This LF belongs to a CR that already ended a line.
            piece = piece.removeprefix(b"\n")
            self._ended_with_cr = False
        *lines, self._rest = _LINE_END.split(self._rest + piece)
        self._ended_with_cr = piece.endswith(b"\r") or (not piece and self._ended_with_cr)
        events = []
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                events.append(b"\n".join(self._data))
                self._data.clear()
        return events
