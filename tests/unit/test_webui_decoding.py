"""How much is decoded at once: judged by a file's header, shared by all visitors, and given back."""

import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from manyeyes.devcluster.eventually import eventually
from tests.unit.test_webui_files import LIMITS, MEDIA, a_pdf, a_picture, a_video
from webui.chat.chat_requester import SamplingSettings
from webui.files import attachments, decoding, images, videos
from webui.files.decoding import DecodeBudget
from webui.user_error import UserError

pytestmark = pytest.mark.usefixtures("uploads_folder")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int) -> bytes:
    """A PNG that says its size and holds nothing: whoever decodes it finds it damaged."""
    head = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def gif_header(width: int, height: int) -> bytes:
    return (
        b"GIF89a"
        + struct.pack("<HH", width, height)
        + b"\x80\0\0"
        + b"\0\0\0\xff\xff\xff"
        + (b"," + struct.pack("<HHHH", 0, 0, width, height) + b"\0\x02\x02L\x01\0;")
    )


def gif_of_a_small_canvas(width: int, height: int) -> bytes:
    """Its first frame is larger than it says of the whole."""
    small = gif_header(8, 8)
    return small.replace(b"," + struct.pack("<HHHH", 0, 0, 8, 8), b"," + struct.pack("<HHHH", 0, 0, width, height))


def bmp_header(width: int, height: int) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + info


def in_threads(count: int, work: Callable[[], None]) -> list[threading.Thread]:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


@pytest.mark.parametrize("make", [png_header, gif_header, gif_of_a_small_canvas, bmp_header])
@pytest.mark.parametrize("sides", [(9990, 9990), (1, 60_000_000), (65_000, 65_000)])
def test_a_picture_of_too_many_pixels_is_refused_by_its_header(
    uploads_folder: Path, make: Callable[[int, int], bytes], sides: tuple[int, int]
) -> None:
    if sides[1] > 65_535 and "gif" in make.__name__:
        sides = 65_000, 1000  # a GIF has no longer side
    path = uploads_folder / "bomb.png"
    path.write_bytes(make(*sides))
    for look in (
        lambda: attachments.estimate_costs([str(path)], LIMITS, MEDIA),
        lambda: attachments.prepare_attachments([str(path)], LIMITS, MEDIA),
        lambda: images.read_image(path),
        lambda: images.image_size(path),
    ):
        with pytest.raises(UserError, match="too many pixels") as caught:
            look()
        assert caught.value.advice == "Scale it down, then attach it again."


@pytest.mark.parametrize("kind", ["TIFF", "ICO", "PPM", "TGA"])
def test_what_only_looks_like_a_picture_that_engines_take_is_not_read(uploads_folder: Path, kind: str) -> None:
    path = uploads_folder / "icon.png"
    Image.new("RGB", (64, 64)).save(path, kind)
    with pytest.raises(UserError, match="not an image that can be read"):
        images.read_image(path)


def test_the_first_frame_of_an_animation_is_all_that_is_read(uploads_folder: Path) -> None:
    path = uploads_folder / "cat.gif"
    frames = [Image.new("P", (40, 30), shade) for shade in range(5)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert images.read_image(path).size == (40, 30)


def test_who_comes_when_the_budget_is_used_up_waits_and_then_has_its_turn() -> None:
    budget, most = DecodeBudget(100), []
    held = threading.Semaphore(0)
    lock = threading.Lock()
    now = 0

    def work() -> None:
        nonlocal now
        with budget.holding(40):
            with lock:
                now += 40
                most.append(now)
            held.acquire(timeout=20)
            with lock:
                now -= 40

    threads = in_threads(6, work)
    eventually(lambda: len(most) == 2, 10, 0.01, "two of six have room")
    held.release(6)
    for thread in threads:
        thread.join(20)
    assert (len(most), max(most)) == (6, 80)


def test_a_file_that_needs_more_than_there_is_gets_all_of_it() -> None:
    budget = DecodeBudget(100, wait_s=0.01)
    with budget.holding(1000):
        refused: list[UserError] = []

        def work() -> None:
            try:
                with budget.holding(1):
                    pass
            except UserError as failure:
                refused.append(failure)

        in_threads(1, work)[0].join(20)
        assert "busy" in refused[0].summary
    with budget.holding(100):
        pass


def test_what_fails_gives_its_room_back_and_what_is_inside_takes_none() -> None:
    budget = DecodeBudget(100, wait_s=0.01)
    for _ in range(3):
        with pytest.raises(ValueError, match="damaged"), budget.holding(60), budget.holding(60):
            raise ValueError("damaged")
    with budget.holding(100):
        pass


def test_every_way_to_decode_takes_from_the_same_budget(uploads_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture, walk, letter = (
        a_picture(uploads_folder, 1500, 1500),
        Path(a_video(uploads_folder, 2)),
        Path(a_pdf(uploads_folder, 1)),
    )
    clip = videos.probe_video(walk)
    ways: list[Callable[[], object]] = [
        lambda: images.read_image(Path(picture)),
        lambda: images.shrink_image(Path(picture), 1280),
        lambda: attachments.prepare_attachments([picture], LIMITS, MEDIA),
        lambda: images.render_page(letter, 0, 1280),
        lambda: videos.probe_video(walk),
        lambda: videos.thin_video(walk, uploads_folder / "thin.mp4", clip, 4, 320),
    ]
    used_up = DecodeBudget(1, wait_s=0.01)
    monkeypatch.setattr(decoding, "SHARED_BUDGET", used_up)
    in_use, end = threading.Event(), threading.Event()

    def hold() -> None:
        with used_up.holding(1):
            in_use.set()
            end.wait(30)

    [holder] = in_threads(1, hold)
    assert in_use.wait(20)
    for way in ways:
        with pytest.raises(UserError, match="busy with large files"):
            way()
    end.set()
    holder.join(20)
    for way in ways:
        way()


def test_a_program_cannot_have_a_page_drawn_larger_than_the_page_itself_offers(uploads_folder: Path) -> None:
    wall = a_pdf(uploads_folder, 1, 14_400, 14_400)  # 200 inches
    [one] = attachments.prepare_attachments([wall], SamplingSettings("m", longest=500_000).limits, MEDIA)
    assert images.image_size(one.path) == (images.MAX_SIDE, images.MAX_SIDE)
    assert max(images.render_page(Path(wall), 0, 500_000).size) == images.MAX_SIDE
    assert SamplingSettings("m", most_frames=10**6).limits.most_frames == videos.MAX_FRAMES


def test_a_page_that_holds_a_picture_of_too_many_pixels_is_not_drawn(uploads_folder: Path) -> None:
    path = uploads_folder / "bomb.pdf"
    path.write_bytes(PDF_BOMB % (30_000, 30_000))
    with pytest.raises(UserError, match="too many pixels"):
        images.render_page(path, 0, 1280)
    path.write_bytes(PDF_BOMB % (30, 30))
    assert max(images.render_page(path, 0, 1280).size) > 0


def test_a_video_of_too_large_frames_is_refused_before_a_frame_is_decoded(
    uploads_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = Path(a_video(uploads_folder, 1))
    monkeypatch.setattr(decoding, "MAX_PIXELS", 320 * 180 - 1)
    with pytest.raises(UserError, match="too many pixels"):
        videos.probe_video(walk)


PDF_BOMB = b"""%%PDF-1.4
1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj
2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj
3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]/Resources<</XObject<</I 4 0 R>>>>/Contents 5 0 R>>endobj
4 0 obj<</Type/XObject/Subtype/Image/Width %d/Height %d/ColorSpace/DeviceGray/BitsPerComponent 8/Length 1>>stream
x
endstream endobj
5 0 obj<</Length 23>>stream
200 0 0 200 0 0 cm /I Do
endstream endobj
trailer<</Root 1 0 R>>
%%%%EOF
"""
