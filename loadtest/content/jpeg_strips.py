"""A JPEG cut into strips that can be put in any order: a new picture for the price of copying its bytes.

Making a JPEG of 900 x 700 takes 10 ms, and engines know a picture they have seen by its content, so a load test needs a
new one for every question. JPEG has restart markers (ITU-T T.81, B.2.1 and E.1.4): what lies between two of them is
decoded without what came before. With one marker after each row of blocks, rows change places without being encoded
again, and 42 rows have more orders than anybody will ask for.
"""

import io
import re
from dataclasses import dataclass
from random import Random

from PIL import Image

_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_END = b"\xff\xd9"


@dataclass(frozen=True)
class Strips:
    """`head` goes up to the first strip; all strips but the last, which may be less high, can change places."""

    head: bytes
    rows: tuple[bytes, ...]
    last: bytes

    def shuffled(self, random: Random) -> bytes:
        """A whole JPEG with these strips in an order of its own."""
        order = random.sample(self.rows, len(self.rows))
        order.append(self.last)
        parts = [self.head, order[0]]
        for number, row in enumerate(order[1:]):
            parts += (_MARKERS[number % 8], row)
        parts.append(_END)
        return b"".join(parts)


_MARKERS = tuple(bytes((0xFF, 0xD0 + number)) for number in range(8))


def cut(picture: Image.Image, quality: int) -> Strips:
    """Encodes a picture once."""
    made = io.BytesIO()
    picture.save(made, "JPEG", quality=quality, restart_marker_rows=1)
    whole = made.getvalue()
    scan = whole.index(b"\xff\xda")
    start = scan + 2 + int.from_bytes(whole[scan + 2 : scan + 4], "big")
    rows = _RESTART.split(whole[start:].removesuffix(_END))
    return Strips(whole[:start], tuple(rows[:-1]), rows[-1])
