import base64
import io
import struct
from random import Random

import pytest
from PIL import Image

from loadtest.content import SIZES, ImageKind, SeededImage, SeededVideo, strips
from manyeyes.emulator.media_headers import read_clip


@pytest.mark.parametrize("kind", ["photo", "page", "screen"])
def test_a_picture_is_a_whole_jpeg_of_its_size(kind: ImageKind) -> None:
    picture = Image.open(io.BytesIO(SeededImage(kind, "a").jpeg()))
    picture.load()
    assert picture.size == SIZES[kind]


def test_another_name_is_another_picture_in_bytes_and_in_pixels_and_the_same_name_the_same() -> None:
    one, other = SeededImage("photo", "1").jpeg(), SeededImage("photo", "2").jpeg()
    assert one != other
    assert Image.open(io.BytesIO(one)).tobytes() != Image.open(io.BytesIO(other)).tobytes()
    assert SeededImage("photo", "1").jpeg() == one
    assert 140_000 <= len(one) <= 165_000, "what a photograph weighs"


def test_strips_change_places_and_none_is_lost() -> None:
    base = strips("photo", 896, 672)
    shown = Image.open(io.BytesIO(base.shuffled(Random("x")))).convert("L")
    sober = Image.open(io.BytesIO(base.shuffled(Random("y")))).convert("L")
    assert len(base.rows) == 672 // 16 - 1
    assert sorted(shown.histogram()) != []
    assert abs(sum(shown.histogram()[:128]) - sum(sober.histogram()[:128])) < 0.001 * 896 * 672


def test_a_video_tells_its_length_and_size_and_its_frames_are_pictures() -> None:
    video = SeededVideo("v", seconds=6)
    avi = video.avi()
    clip = read_clip(base64.b64encode(avi).decode())
    assert (clip.seconds, clip.width, clip.height) == (6.0, 480, 272)
    assert struct.unpack("<I", avi[4:8])[0] == len(avi) - 8
    at = avi.index(b"00dc", avi.index(b"movi"))
    size = struct.unpack("<I", avi[at + 4 : at + 8])[0]
    frame = Image.open(io.BytesIO(avi[at + 8 : at + 8 + size]))
    frame.load()
    assert frame.size == (480, 272)
    assert SeededVideo("w", seconds=6).avi() != avi
