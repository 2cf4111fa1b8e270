"""Server-sent events: bytes as they arrive, as the data of each whole event. Pure but for its memory.

Lines end with LF, CRLF or CR (https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation).
An event's name, its id and comments are left out.
"""

import re

_LINE_END = re.compile(rb"\r\n|\n|\r")


class EventStreamParser:
    """One stream. An event is given out with the bytes that end it, not later."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._ended_with_cr = False

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events that are whole with these bytes."""
        if self._ended_with_cr and piece:
            # This LF belongs to a CR that has ended a line already.
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
