"""Makes of what a visitor attached what is sent: pictures of a bounded size, thinned videos, the pages of PDFs as pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from manyeyes.config.pools import Media
from webui.auth import upload_paths
from webui.files import images, media_parts, pdf, videos, vision_tokens
from webui.files.videos import Clip
from webui.i18n.language import counted, say
from webui.user_error import Failure

PDF = ".pdf"
MOST_PAGES = 200


@dataclass(frozen=True)
class Limits:
    """What the visitor chose."""

    longest: int = 1280
    """Pixels of a picture's longer side."""
    frames_per_s: float = vision_tokens.FRAMES_PER_S
    most_frames: int = 16

    def __post_init__(self) -> None:
        """Programs may send any number, and a page of a PDF is drawn as large as it says."""
        object.__setattr__(self, "longest", max(1, min(self.longest, images.MOST_SIDE)))
        object.__setattr__(self, "most_frames", max(1, min(self.most_frames, videos.MOST_FRAMES)))


@dataclass(frozen=True)
class Attached:
    """One picture or video as the chat shows it. `said` tells what is done to it before it is sent; empty where nothing is.

    A video is shown whole and sent thinned: browsers do not play what OpenCV writes.
    """

    path: Path
    tokens: int
    said: str = ""


@dataclass(frozen=True)
class Cost:
    """What one attached file will cost, told before it is sent."""

    name: str
    tokens: int
    said: str
    pictures: int = 0
    videos: int = 0


def prepared(files: list[str], limits: Limits, caps: Media, most_pages: int = MOST_PAGES) -> list[Attached]:
    """Reads and writes files: to be called in a thread. Raises Failure."""
    return [one for file in files for one in _prepared(upload_paths.own(file), limits, caps, most_pages)]


def costs(files: list[str], limits: Limits, caps: Media) -> list[Cost]:
    """Looks at headers only. Raises Failure."""
    return [_cost(upload_paths.own(file), limits, caps) for file in files]


def sent_as(limits: Limits, caps: Media) -> Callable[[Path], Path]:
    """Which file goes to the engine for a file of the chat."""

    def found(path: Path) -> Path:
        return _thinned(path, limits, caps)[0] if media_parts.mime_type(path).startswith("video/") else path

    return found


def is_pdf(path: Path) -> bool:
    return path.suffix.lower() == PDF


def _prepared(path: Path, limits: Limits, caps: Media, most_pages: int) -> Iterator[Attached]:
    if is_pdf(path):
        yield from _pages(path, limits, caps, most_pages)
    elif media_parts.mime_type(path).startswith("video/"):
        _, clip, count = _thinned(path, limits, caps)
        size = vision_tokens.shrunk(clip.width, clip.height, limits.longest)
        tokens = vision_tokens.video(*size, count, caps)
        yield Attached(
            path, tokens, say("{name}: {count} of {all} frames", name=path.name, count=count, all=clip.frames)
        )
    else:
        yield _picture(path, limits, caps)


def _picture(path: Path, limits: Limits, caps: Media) -> Attached:
    with images.room(path):
        found = images.shrunk(path, limits.longest)
        if found is None:
            return Attached(path, vision_tokens.picture(*images.size(path), caps))
        picture, had = found
        suffix = ".png" if path.suffix.lower() == ".png" else ".jpg"
        to = upload_paths.beside(path, f"{path.stem}-{limits.longest}px{suffix}")
        to.write_bytes(images.encoded(picture, suffix))
    return Attached(
        to,
        vision_tokens.picture(*picture.size, caps),
        say("{name}: {had} scaled down to {now}", name=path.name, had=_by(*had), now=_by(*picture.size)),
    )


def _thinned(path: Path, limits: Limits, caps: Media) -> tuple[Path, Clip, int]:
    """The thinned file, made once for each choice of frames; what the video is, and how many frames are left."""
    clip = videos.look(path)
    most = min(limits.most_frames, caps.video_frames)
    count = min(vision_tokens.frames(clip.seconds, limits.frames_per_s, most), clip.frames)
    to = upload_paths.beside(path, f"{path.stem}-{count}-frames-{limits.longest}px.mp4")
    if not to.exists():
        count = videos.thinned(path, to, clip, count, limits.longest)
    return to, clip, count


def _pages(path: Path, limits: Limits, caps: Media, most: int) -> Iterator[Attached]:
    count = pdf.count(path)
    if count > most:
        raise too_many_pages(path.name, count, most)
    for number in range(count):
        picture = pdf.page(path, number, limits.longest)
        to = upload_paths.beside(path, f"{path.stem}-page-{number + 1}-{limits.longest}px.png")
        to.write_bytes(images.encoded(picture, ".png"))
        said = say("{name}: {pages} sent as pictures", name=path.name, pages=pages_said(count)) if number == 0 else ""
        yield Attached(to, vision_tokens.picture(*picture.size, caps), said)


def too_many_pages(name: str, count: int, most: int) -> Failure:
    return Failure(
        say("{name} has {count} pages; here {most} can be sent at once.", name=name, count=count, most=most),
        say("Send fewer of them, or read the whole file in the Documents tab."),
    )


def _cost(path: Path, limits: Limits, caps: Media) -> Cost:
    if is_pdf(path):
        sizes = pdf.sizes(path, limits.longest)
        tokens = sum(vision_tokens.picture(*size, caps) for size in sizes)
        return Cost(path.name, tokens, pages_said(len(sizes)), pictures=len(sizes))
    if media_parts.mime_type(path).startswith("video/"):
        clip = videos.look(path)
        most = min(limits.most_frames, caps.video_frames)
        count = min(vision_tokens.frames(clip.seconds, limits.frames_per_s, most), clip.frames)
        size = vision_tokens.shrunk(clip.width, clip.height, limits.longest)
        said = say("{count} frames of {length}", count=count, length=length(clip.seconds))
        return Cost(path.name, vision_tokens.video(*size, count, caps), said, videos=1)
    had = images.size(path)
    size = vision_tokens.shrunk(*had, limits.longest)
    said = _by(*had) + ("" if size == had else f" → {_by(*size)}")
    return Cost(path.name, vision_tokens.picture(*size, caps), said, pictures=1)


def pages_said(count: int) -> str:
    return counted(count, "{count} page", "{count} pages")


def _by(width: int, height: int) -> str:
    return f"{width} × {height}"


def length(seconds: float) -> str:
    """For example 12 s, 3:20 min, 2:00 h."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60}:{int(seconds) % 60:02} min"
    return f"{int(seconds) // 3600}:{int(seconds) % 3600 // 60:02} h"
