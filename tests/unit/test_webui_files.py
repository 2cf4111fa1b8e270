"""Pictures, videos and PDFs: what is sent of them, what it costs, and what is said of those that cannot be sent."""

import base64
from pathlib import Path

import cv2
import numpy as np
import pypdfium2
import pytest
from PIL import Image

from manyeyes.config.pools import Media
from webui.files import attachments, images, videos, vision_tokens
from webui.files.attachments import AttachmentLimits, estimate_costs, prepare_attachments
from webui.user_error import UserError

pytestmark = pytest.mark.usefixtures("uploads_folder")


LIMITS = AttachmentLimits()
MEDIA = Media()


def a_picture(folder: Path, width: int, height: int, name: str = "cat.png") -> str:
    path = folder / name
    Image.new("RGB", (width, height), "teal").save(path)
    return str(path)


def a_video(folder: Path, seconds: int, name: str = "walk.mp4") -> str:
    path = folder / name
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (320, 180))
    for number in range(seconds * 10):
        writer.write(np.full((180, 320, 3), number % 255, np.uint8))
    writer.release()
    return str(path)


def a_pdf(folder: Path, pages: int, width: int = 595, height: int = 842) -> str:
    document = pypdfium2.PdfDocument.new()
    for _ in range(pages):
        document.new_page(width, height)
    path = folder / "letter.pdf"
    document.save(path)
    return str(path)


def written(folder: Path, name: str, data: bytes) -> str:
    (folder / name).write_bytes(data)
    return str(folder / name)


def test_a_large_picture_is_scaled_down_and_says_so(uploads_folder: Path) -> None:
    [one] = prepare_attachments([a_picture(uploads_folder, 4000, 3000)], LIMITS, MEDIA)
    assert images.image_size(one.path) == (1280, 960)
    assert one.note == "cat.png: 4000 × 3000 scaled down to 1280 × 960"


def test_a_small_picture_goes_as_it_is(uploads_folder: Path) -> None:
    path = a_picture(uploads_folder, 400, 300)
    [one] = prepare_attachments([path], LIMITS, MEDIA)
    assert (str(one.path), one.note) == (path, "")


def test_a_picture_turned_by_its_camera_is_sent_upright(uploads_folder: Path) -> None:
    path = uploads_folder / "phone.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (3000, 2000), "teal").save(path, exif=exif)
    [one] = prepare_attachments([str(path)], LIMITS, MEDIA)
    assert images.image_size(one.path) == (853, 1280)


def test_a_video_is_thinned_to_the_frames_that_are_wanted_and_keeps_its_length(uploads_folder: Path) -> None:
    path = Path(a_video(uploads_folder, 20))
    sent = attachments.sent_file_resolver(AttachmentLimits(most_frames=8), MEDIA)(path)
    clip = videos.probe_video(sent)
    assert (clip.frames, round(clip.seconds)) == (8, 20)
    [one] = prepare_attachments([str(path)], AttachmentLimits(most_frames=8), MEDIA)
    assert (one.path, one.note) == (path, "walk.mp4: 8 of 200 frames")


def test_each_page_of_a_pdf_becomes_a_picture(uploads_folder: Path) -> None:
    found = prepare_attachments([a_pdf(uploads_folder, 3)], LIMITS, MEDIA)
    assert [images.image_size(one.path) for one in found] == [(905, 1280)] * 3
    assert found[0].note == "letter.pdf: 3 pages sent as images"


def test_what_is_told_before_is_what_is_counted_after(uploads_folder: Path) -> None:
    files = [a_picture(uploads_folder, 4000, 3000), a_video(uploads_folder, 20), a_pdf(uploads_folder, 2)]
    before = sum(cost.tokens for cost in estimate_costs(files, LIMITS, MEDIA))
    after = sum(one.tokens for one in prepare_attachments(files, LIMITS, MEDIA))
    assert before == after


@pytest.mark.parametrize(
    ("size", "media", "tokens"),
    [((1024, 1024), MEDIA, 1024), ((320, 320), MEDIA, 100), ((32, 32), MEDIA, 64), ((4000, 4000), MEDIA, 1225),
     ((2000, 2000), Media(max_pixels=262_144), 256)],
    ids=["as it is", "small", "scaled up to min_pixels", "scaled down to max_pixels", "down to the pool's own max_pixels"],
)  # fmt: skip
def test_32_by_32_pixels_are_a_token_within_the_pools_limits(size: tuple[int, int], media: Media, tokens: int) -> None:
    assert vision_tokens.image_tokens(*size, media) == tokens + vision_tokens.IMAGE_MARK_TOKENS


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("cat.png", b"", "cat.png is empty"),
        ("cat.png", b"no picture at all", "cat.png is not an image"),
        ("walk.mp4", b"", "walk.mp4 is empty"),
        ("walk.mp4", b"\0\0\0\x18ftypmp42" + b"x" * 900, "walk.mp4 is not a video"),
        ("letter.pdf", b"", "letter.pdf is empty"),
        ("letter.pdf", b"%PDF-1.7 and nothing", "letter.pdf is not a PDF"),
        ("notes.txt", b"hello", "notes.txt is neither an image nor a video"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(uploads_folder: Path, name: str, data: bytes, said: str) -> None:
    path = written(uploads_folder, name, data)
    for look in (estimate_costs, prepare_attachments):
        with pytest.raises(UserError, match=said) as caught:
            look([path], LIMITS, MEDIA)
        assert caught.value.advice


def test_a_picture_cut_in_the_middle_is_found_here_and_not_by_an_engine(uploads_folder: Path) -> None:
    whole = Path(a_picture(uploads_folder, 900, 900)).read_bytes()
    path = written(uploads_folder, "half.png", whole[: len(whole) // 2])
    with pytest.raises(UserError, match="damaged"):
        prepare_attachments([path], LIMITS, MEDIA)


def test_a_pdf_with_a_password_says_what_to_do(uploads_folder: Path) -> None:
    path = written(uploads_folder, "locked.pdf", LOCKED)
    with pytest.raises(UserError, match="password"):
        estimate_costs([path], LIMITS, MEDIA)


def test_a_pdf_of_too_many_pages_points_to_documents(uploads_folder: Path) -> None:
    with pytest.raises(UserError, match="Documents tab"):
        prepare_attachments([a_pdf(uploads_folder, 6)], LIMITS, MEDIA, max_pages=5)


@pytest.mark.parametrize("path", ["/etc/passwd", "../../etc/passwd"])
def test_a_path_that_is_no_upload_is_refused(path: str) -> None:
    with pytest.raises(UserError, match="not uploaded"):
        estimate_costs([path], LIMITS, MEDIA)


# A PDF whose security handler wants a password nobody has: the check of the empty one fails.
LOCKED = b"""%%PDF-1.4
1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj
2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj
3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]>>endobj
4 0 obj<</Filter/Standard/V 1/R 2/O<%b>/U<%b>/P -44>>endobj
trailer<</Root 1 0 R/Encrypt 4 0 R/ID[<00><00>]>>
%%%%EOF
""" % (b"61" * 32, b"62" * 32)


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
    with pytest.raises(UserError, match=r"notes\.pdf is neither an image nor a video.*png"):
        attachments.mime_type(tmp_path / "notes.pdf")


def test_a_file_the_page_no_longer_holds_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.png is no longer on the server.*attach it again"):
        attachments.data_url(tmp_path / "gone.png")
    with pytest.raises(UserError, match=r"gone\.png is no longer on the server"):
        attachments.wire_bytes(tmp_path / "gone.png")
