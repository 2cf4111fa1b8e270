import base64
import io

import pytest
from PIL import Image

from manyeyes.emulator import media_headers
from manyeyes.emulator.responses import RequestError


def encoded(kind: str, size: tuple[int, int], **save: object) -> bytes:
    file = io.BytesIO()
    Image.effect_noise(size, 50).convert("RGB").save(file, kind, **save)
    return file.getvalue()


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("size", [(1, 1), (333, 517), (2500, 100)])
@pytest.mark.parametrize(
    ("kind", "save"),
    [
        ("PNG", {}),
        ("GIF", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\0\0" + bytes(20)}),
    ],
)
def test_the_size_of_an_image_is_read_from_its_header(
    kind: str, save: dict[str, object], size: tuple[int, int]
) -> None:
    assert media_headers.image_size(text(encoded(kind, size, **save))) == size


@pytest.mark.parametrize("profile_bytes", [5_000, 300_000])
def test_a_jpeg_with_a_long_profile_before_its_frame_header_has_its_size_found(profile_bytes: int) -> None:
    assert media_headers.image_size(text(encoded("JPEG", (64, 48), icc_profile=bytes(profile_bytes)))) == (64, 48)


@pytest.mark.parametrize(
    "data",
    [
        b"this is no picture" * 10,
        b"",
        encoded("PNG", (9, 9))[:20],
        encoded("JPEG", (9, 9))[:30],
        b"\x89PNG\r\n\x1a\n" + bytes(40),
    ],
    ids=["text", "nothing", "cut PNG", "cut JPEG", "PNG of no size"],
)
def test_what_is_not_an_image_is_refused_with_400(data: bytes) -> None:
    with pytest.raises(RequestError, match="cannot identify image file") as caught:
        media_headers.image_size(text(data))
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ("https://example.com/a.png", 400),
        ("file:///etc/hostname", 400),
        ("hello", 400),
        ("data:image/png,hello", 501),
        ("data:image/png;base64,@@@@", 400),
        ("data:image/png;base64," + text(encoded("PNG", (2010, 10))), 400),
    ],
)
def test_an_image_url_that_cannot_be_read_is_refused(wrong: str, status: int) -> None:
    with pytest.raises(RequestError) as caught:
        media_headers.image_size(media_headers.payload(wrong))
    assert caught.value.status == status
