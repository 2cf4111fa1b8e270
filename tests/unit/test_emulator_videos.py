import base64
import struct

import pytest

from manyeyes.emulator import media_headers
from manyeyes.emulator.media_headers import VideoClip
from manyeyes.emulator.responses import RequestError


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def mp4(seconds: float, width: int, height: int, *, before: bytes = b"") -> bytes:
    """An MP4 with a header and no frames: a sound track first, then the picture's."""
    movie = struct.pack(">IIIII12x", 0, 0, 0, 600, int(seconds * 600))
    tracks = [
        box(b"trak", box(b"tkhd", bytes(76) + struct.pack(">II", w << 16, h << 16)))
        for w, h in ((0, 0), (width, height))
    ]
    return box(b"ftyp", b"isom" + bytes(8)) + before + box(b"moov", box(b"mvhd", movie) + b"".join(tracks))


def read(data: bytes) -> VideoClip:
    return media_headers.read_clip(base64.b64encode(data).decode())


def test_length_and_size_of_an_mp4_are_read_from_its_header() -> None:
    assert read(mp4(7.5, 1280, 720)) == VideoClip(7.5, 1280, 720)


@pytest.mark.parametrize("length", [0, 1, 2, 100_000])
def test_a_header_behind_the_frames_is_found_without_reading_them(length: int) -> None:
    assert read(mp4(3, 640, 360, before=box(b"mdat", b"\xff" * length))) == VideoClip(3, 640, 360)


def test_length_and_size_of_an_avi_are_read_from_its_header() -> None:
    header = struct.pack("<14I", 40_000, 0, 0, 0, 250, 0, 1, 0, 320, 240, 0, 0, 0, 0)
    data = b"RIFF\0\0\0\0AVI LIST\0\0\0\0hdrlavih" + struct.pack("<I", 56) + header
    assert read(data) == VideoClip(10.0, 320, 240)


@pytest.mark.parametrize(
    "data",
    [
        b"\x1a\x45\xdf\xa3" + bytes(80),
        b"\0\0\0\x18ftypmp42" + bytes(64),
        mp4(7.5, 1280, 720)[:-60],
        mp4(0, 1280, 720),
        b"RIFF" + bytes(100),
    ],
    ids=["WEBM", "MP4 without a header", "cut MP4", "MP4 of no length", "AVI without a header"],
)
def test_a_video_whose_header_does_not_tell_is_taken_for_a_short_clip(data: bytes) -> None:
    assert read(data) == media_headers.UNKNOWN_CLIP


def test_what_is_no_video_is_refused() -> None:
    with pytest.raises(RequestError, match="Could not open video stream"):
        read(b"this is no video" * 10)


@pytest.mark.parametrize(("seconds", "frames"), [(0.4, 4), (3, 6), (8, 16), (600, 16)])
def test_two_frames_a_second_are_sampled_within_limits(seconds: float, frames: int) -> None:
    assert VideoClip(seconds, 640, 480).sampled_frames(16) == frames
