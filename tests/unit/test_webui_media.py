"""Pictures and videos on their way to the gateway."""

import base64
from pathlib import Path

import pytest

from webui.files import attachments
from webui.user_error import UserError


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.png", "image/png"), ("b.JPG", "image/jpeg"), ("c.webp", "image/webp"), ("d.mp4", "video/mp4")],
)
def test_a_data_url_carries_kind_and_bytes(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"\x00\x01\xffdata")
    head, _, body = attachments.data_url(path).partition(",")
    assert head == f"data:{kind};base64"
    assert base64.b64decode(body) == b"\x00\x01\xffdata"


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 1000])
def test_the_size_on_the_wire_is_known_without_reading(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"x" * size)
    assert attachments.wire_bytes(path) == len(attachments.data_url(path))


def test_a_file_that_is_no_picture_or_video_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"notes\.pdf is neither a picture nor a video.*png"):
        attachments.mime_type(tmp_path / "notes.pdf")


def test_a_file_the_page_no_longer_holds_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no longer holds gone\.png.*attach it again"):
        attachments.data_url(tmp_path / "gone.png")
    with pytest.raises(UserError, match=r"no longer holds gone\.png"):
        attachments.wire_bytes(tmp_path / "gone.png")
