"""The size of a picture in a data URL, from its header: no pixel is decoded, and of a large picture only a part is read.

Formats: PNG (https://www.w3.org/TR/png-3/#11IHDR), GIF (its logical screen), JPEG (the first frame header, ITU T.81
B.2.2), WEBP (https://developers.google.com/speed/webp/docs/riff_container: VP8, VP8L and VP8X).
"""

import binascii
from base64 import b64decode

from manyeyes.emulator.errors import RequestError

# A header is nearly always within the first part; a JPEG may carry a large colour profile or thumbnail before it.
PARTS = (4_096, 262_144, 1 << 62)  # base64 characters, each a multiple of 4
MAX_ASPECT_RATIO = 200  # Qwen3-VL's image processor takes no longer image

JPEG_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
JPEG_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}


def size(text: str) -> tuple[int, int]:
    """Width and height in pixels of the picture in a base64 text. Raises RequestError when it cannot be read."""
    for part in PARTS:
        data = decode(text[:part])
        if (found := header_size(data)) is not None:
            if min(found) < 1:
                break
            if max(found) > MAX_ASPECT_RATIO * min(found):
                raise RequestError(f"absolute aspect ratio must be smaller than {MAX_ASPECT_RATIO}")
            return found
        if not known(data) or part >= len(text):
            break
    raise RequestError("Failed to load image: cannot identify image file")


def payload(url: str) -> str:
    """What is behind the comma of a base64 data URL. Raises RequestError for every other URL."""
    if not url.startswith("data:"):
        if url.startswith(("http://", "https://")):
            raise RequestError("This engine is emulated and fetches no media. Send the file as a data URL.")
        raise RequestError("The URL must be either a HTTP, data or file URL.")
    head, comma, text = url.partition(",")
    if not comma or not head.endswith(";base64"):
        raise RequestError("Only base64 data URLs are supported for now.", status=501, kind="NotImplementedError")
    return text


def decode(text: str) -> bytes:
    """Strict base64, as vLLM takes it."""
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RequestError("Non-base64 digit found") from None


def known(data: bytes) -> bool:
    """Whether this begins like one of the four formats."""
    is_webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    return is_webp or data.startswith((b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"\xff\xd8\xff"))


def header_size(data: bytes) -> tuple[int, int] | None:
    """Width and height, or None when the format is another or the header goes on beyond `data`."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return (big(data[16:20]), big(data[20:24])) if len(data) >= 24 else None
    if data.startswith((b"GIF87a", b"GIF89a")):
        return (little(data[6:8]), little(data[8:10])) if len(data) >= 10 else None
    if data.startswith(b"\xff\xd8\xff"):
        return jpeg_size(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return webp_size(data)
    return None


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Walk the segments to the first frame header."""
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # padding before a marker
            at += 1
        elif marker in JPEG_WITHOUT_LENGTH:
            at += 2
        elif marker in JPEG_FRAMES:
            return big(data[at + 7 : at + 9]), big(data[at + 5 : at + 7])
        else:
            at += 2 + big(data[at + 2 : at + 4])
    return None


def webp_size(data: bytes) -> tuple[int, int] | None:
    """The first chunk tells: lossy (VP8), lossless (VP8L) or extended (VP8X)."""
    if len(data) < 30:
        return None
    chunk = data[12:16]
    if chunk == b"VP8 ":
        return little(data[26:28]) & 0x3FFF, little(data[28:30]) & 0x3FFF
    if chunk == b"VP8L":
        packed = little(data[21:25])
        return (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    if chunk == b"VP8X":
        return little(data[24:27]) + 1, little(data[27:30]) + 1
    return None


def big(data: bytes) -> int:
    return int.from_bytes(data, "big")


def little(data: bytes) -> int:
    return int.from_bytes(data, "little")
