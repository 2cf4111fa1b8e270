"""Files are decoded in processes of their own: one that takes too long or crashes costs its sender an error and nobody else anything."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.unit.test_webui_files import a_pdf, a_picture, a_video
from webui.auth.uploads import acting_as
from webui.files import decoders
from webui.files.decoder_child import MAX_BYTES
from webui.files.decoders import DOCUMENT_BYTES, DecoderPool
from webui.i18n import ZH, use_language
from webui.user_error import UserError


def pdf_bomb(levels: int = 30) -> bytes:
    """A page of nested forms, each of which draws the next one ten times: days of work in a few kilobytes."""

    def form(number: int, draws: bytes, more: bytes) -> bytes:
        head = b"%d 0 obj<<%b/BBox[0 0 99 99]/Resources<</XObject<</F %d 0 R>>>>/Length %d>>stream\n"
        return head % (number, more, number + 1, len(draws)) + draws + b"\nendstream endobj\n"

    page = b"/Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]/Contents 4 0 R/Resources<</XObject<</F 5 0 R>>>>"
    parts = [
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n",
        b"3 0 obj<<" + page + b">>endobj\n",
        form(4, b"/F Do", b""),
        *(form(number, b"/F Do " * 10, b"/Type/XObject/Subtype/Form") for number in range(5, 5 + levels)),
        form(5 + levels, b"0 0 9 9 re f", b"/Type/XObject/Subtype/Form"),
        b"trailer<</Root 1 0 R>>\n",
    ]
    return b"".join(parts)


OVER_LIMITS = r"bomb.pdf (takes more than \d+ s to read|needs too much memory to read)"
"""Such a file needs both without end; which limit it reaches first depends on the machine."""


@pytest.fixture
def pool() -> Iterator[DecoderPool]:
    pool = DecoderPool(size=2, cpu_s=1, wait_s=600)
    yield pool
    pool.close()


@pytest.fixture
def bomb(uploads_folder: Path) -> Path:
    path = uploads_folder / "hash of the bomb" / "bomb.pdf"
    path.parent.mkdir()
    path.write_bytes(pdf_bomb())
    return path


def render(pool: DecoderPool, path: Path) -> object:
    return pool.run("render_page", path, 0, 1280, needed_bytes=DOCUMENT_BYTES)[0]


def test_a_pdf_that_needs_too_much_is_refused_and_refused_again_without_being_read(
    pool: DecoderPool, bomb: Path, uploads_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bomb.stat().st_size < 6000
    letter = Path(a_pdf(uploads_folder, 1))
    with pytest.raises(UserError, match=OVER_LIMITS):
        render(pool, bomb)
    with monkeypatch.context() as patch:
        patch.setattr(decoders, "DecoderChild", None)  # no process gets this file again
        with pytest.raises(UserError, match=OVER_LIMITS):
            render(pool, bomb)
    pool.cpu_s = 60
    assert render(pool, letter) == [905, 1280]


def test_others_read_their_files_while_one_visitor_sends_such_pdfs(
    pool: DecoderPool, bomb: Path, uploads_folder: Path
) -> None:
    pool.cpu_s = 600
    letter = Path(a_pdf(uploads_folder, 1))
    failures: list[UserError] = []

    def hostile() -> None:
        with acting_as("mallory"):
            try:
                render(pool, bomb)
            except UserError as failure:
                failures.append(failure)

    threads = [threading.Thread(target=hostile) for _ in range(3)]
    for thread in threads:
        thread.start()
    with acting_as("alice"):
        assert render(pool, letter) == [905, 1280]
    assert failures == []
    while any(thread.is_alive() for thread in threads):
        pool.close()
        for thread in threads:
            thread.join(0.05)
    assert len(failures) == 3
    assert "needs too much memory" in failures[0].summary


def test_a_child_has_limits_and_is_the_first_to_end_when_memory_is_short(
    pool: DecoderPool, uploads_folder: Path
) -> None:
    pool.cpu_s = 60
    render(pool, Path(a_pdf(uploads_folder, 1)))
    [child] = pool._children
    limits = Path(f"/proc/{child.process.pid}/limits").read_text()
    data = int(next(line for line in limits.splitlines() if line.startswith("Max data size")).split()[3])
    assert MAX_BYTES < data < 2 * MAX_BYTES
    assert "unlimited" not in next(line for line in limits.splitlines() if line.startswith("Max cpu time")).split()[3]
    assert Path(f"/proc/{child.process.pid}/oom_score_adj").read_text() == "1000\n"
    child.end()
    assert child.process.poll() is not None


def test_the_answers_of_all_operations_come_back_whole(uploads_folder: Path) -> None:
    picture, walk = Path(a_picture(uploads_folder, 1600, 1200)), Path(a_video(uploads_folder, 2))
    shrunk = decoders.shrink_image(picture, 1280, ".png")
    assert shrunk is not None
    assert (shrunk[0][:4], *shrunk[1:]) == (b"\x89PNG", (1600, 1200), (1280, 960))
    assert decoders.shrink_image(picture, 4096, ".png") is None
    assert decoders.read_image(picture).size == (1600, 1200)
    letter = Path(a_pdf(uploads_folder, 2))
    assert (decoders.count_pages(letter), decoders.page_sizes(letter, 1280)) == (2, [(905, 1280)] * 2)
    clip = decoders.probe_video(walk)
    assert decoders.thin_video(walk, uploads_folder / "thin.mp4", clip, 4, 320) == 4


def broken(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(b"nothing that can be read")
    return path


@pytest.mark.parametrize(
    ("name", "look"),
    [("a.pdf", decoders.count_pages), ("a.mp4", decoders.probe_video), ("a.png", decoders.read_image)],
)
def test_a_bad_file_is_named_in_the_visitors_language(
    uploads_folder: Path, name: str, look: Callable[[Path], object]
) -> None:
    path = broken(uploads_folder, name)
    with pytest.raises(UserError, match=name):
        look(path)
    with use_language(ZH), pytest.raises(UserError, match="请"):
        look(path)


def test_a_picture_of_another_kind_than_its_name_is_read_in_the_child(uploads_folder: Path) -> None:
    path = uploads_folder / "cat.png"
    Image.new("RGB", (30, 20)).save(path, "WEBP")
    assert decoders.read_image(path).size == (30, 20)
