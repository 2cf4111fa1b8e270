"""Images whose headers name a size: small files, without the pixels that a decoder would allocate."""

import base64
import struct
import zlib


def data_url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, pixels: bytes = b"", before: bytes = b"") -> bytes:
    """`pixels`: the content of IDAT; `before`: chunks before it."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def jpeg(width: int, height: int, before: bytes = b"") -> bytes:
    """`before`: segments before the size."""
    frame = struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\x00"
    return b"\xff\xd8" + before + segment(0xC0, frame) + segment(0xDA, b"\x01\x01\x00\x00\x3f\x00") + b"\xff\xd9"


def segment(marker: int, data: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data


def webp(width: int, height: int) -> bytes:
    """The canvas of an extended file; at most 16,777,216 on a side."""
    canvas = b"\0\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + canvas


def gif(width: int, height: int, frame: tuple[int, int, int, int], before: bytes = b"") -> bytes:
    """`frame`: left, top, width, height of the first frame; `before`: extensions before it."""
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + before + b"," + struct.pack("<HHHHB", *frame, 0)


def bmp(width: int, height: int) -> bytes:
    """A negative height: the top row comes first."""
    return (
        b"BM"
        + struct.pack("<IHHI", 54, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 1, 0, 0, 0, 0, 0, 0)
    )


def tiff(tags: list[tuple[int, int, int, int]], order: str = "<", gap: int = 0) -> bytes:
    """`tags`: number, type, count, value; `gap`: bytes before the directory."""
    magic = b"II*\0" if order == "<" else b"MM\0*"
    value = {3: lambda number: struct.pack(f"{order}HH", number, 0)}
    entries = b"".join(
        struct.pack(f"{order}HHI", tag, kind, count)
        + value.get(kind, lambda number: struct.pack(f"{order}I", number))(number)
        for tag, kind, count, number in tags
    )
    return magic + struct.pack(f"{order}I", 8 + gap) + b"\0" * gap + struct.pack(f"{order}H", len(tags)) + entries


SMALL_URL = data_url(png(8, 6))
