"""What a video costs, without decoding it: every one is taken for the same short clip."""

from engine.emulator.errors import RequestError
from engine.emulator.images import decode, payload

FRAMES = 16
FRAME_SIZE = (640, 480)  # pixels, width and height


def check(url: str) -> None:
    """Raise RequestError unless `url` is a base64 data URL that begins like MP4, WEBM or AVI."""
    data = decode(payload(url)[:64])
    if not (data[4:8] == b"ftyp" or data[:4] in (b"\x1a\x45\xdf\xa3", b"RIFF")):
        raise RequestError("Could not open video stream")
