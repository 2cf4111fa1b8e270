"""Prepares attachments for sending: scaled images, thinned videos, and PDF pages as images."""

import base64
import html
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manyeyes.config.pools import Media, Pool
from webui.auth import uploads
from webui.files import decoders, images, videos, vision_tokens
from webui.files.videos import VideoInfo
from webui.i18n import _, ngettext
from webui.user_error import UserError

# Formats that vLLM reads (with Pillow and OpenCV), by suffix: slim Python images have no /etc/mime.types.
IMAGE_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".bmp": "image/bmp",
}
VIDEO_TYPES = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/quicktime",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
    ".avi": "video/x-msvideo",
}
MEDIA_SUFFIXES = [*IMAGE_TYPES, *VIDEO_TYPES]


def mime_type(path: Path) -> str:
    """Returns `image/...` or `video/...`. Raises UserError for other files."""
    suffix = path.suffix.lower()
    kind = IMAGE_TYPES.get(suffix) or VIDEO_TYPES.get(suffix)
    if kind is None:
        raise UserError(
            _("{name} is neither an image nor a video that can be sent.", name=path.name),
            _("Supported formats: {kinds}.", kinds=", ".join(suffix.removeprefix(".") for suffix in MEDIA_SUFFIXES)),
        )
    return kind


def wire_bytes(path: Path) -> int:
    """Returns the length of `data_url(path)` without reading the file. base64 encodes 3 bytes as 4 characters."""
    return len(f"data:{mime_type(path)};base64,") + 4 * -(-_size(path) // 3)


def data_url(path: Path) -> str:
    kind = mime_type(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise _missing_file_error(path) from None
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def media_part(path: Path) -> dict[str, Any]:
    kind = "image_url" if mime_type(path).startswith("image/") else "video_url"
    return {"type": kind, kind: {"url": data_url(path)}}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        raise _missing_file_error(path) from None


def _missing_file_error(path: Path) -> UserError:
    return UserError(
        _("{name} is no longer on the server.", name=path.name), _("Start a new chat and attach it again.")
    )


PDF_SUFFIX = ".pdf"
MAX_PDF_PAGES = 200


@dataclass(frozen=True)
class AttachmentLimits:
    longest: int = 1280
    """Longer side of an image in pixels."""
    frames_per_s: float = vision_tokens.FRAMES_PER_S
    most_frames: int = 16

    def __post_init__(self) -> None:
        """Clamps the values, because programs may send any number and PDF pages are rendered at this size."""
        object.__setattr__(self, "longest", max(1, min(self.longest, images.MAX_SIDE)))
        object.__setattr__(self, "most_frames", max(1, min(self.most_frames, videos.MAX_FRAMES)))


@dataclass(frozen=True)
class PreparedAttachment:
    """An image or a video as the chat shows it. `note` describes how it is changed for sending; empty if unchanged.

    The chat shows the original video, because browsers do not play the thinned video that OpenCV writes.
    """

    path: Path
    tokens: int
    note: str = ""


@dataclass(frozen=True)
class AttachmentCost:
    """Estimated cost of an attached file."""

    name: str
    tokens: int
    note: str
    images: int = 0
    videos: int = 0


def prepare_attachments(
    files: list[str], limits: AttachmentLimits, media: Media, max_pages: int = MAX_PDF_PAGES
) -> list[PreparedAttachment]:
    """Prepares all files. Reads and writes files, so call it in a thread. Raises UserError."""
    return [
        attachment for file in files for attachment in _prepare(uploads.resolve_upload(file), limits, media, max_pages)
    ]


def estimate_costs(files: list[str], limits: AttachmentLimits, media: Media) -> list[AttachmentCost]:
    """Estimates the cost of each file from its header. Raises UserError."""
    return [_estimate_cost(uploads.resolve_upload(file), limits, media) for file in files]


def sent_file_resolver(limits: AttachmentLimits, media: Media) -> Callable[[Path], Path]:
    """Returns a function that maps a file of the chat to the file that is sent to the engine."""

    def resolve(path: Path) -> Path:
        return _thin_video(path, limits, media)[0] if mime_type(path).startswith("video/") else path

    return resolve


def is_pdf(path: Path) -> bool:
    return path.suffix.lower() == PDF_SUFFIX


def _prepare(path: Path, limits: AttachmentLimits, media: Media, max_pages: int) -> Iterator[PreparedAttachment]:
    if is_pdf(path):
        yield from _prepare_pages(path, limits, media, max_pages)
    elif mime_type(path).startswith("video/"):
        _path, clip, count = _thin_video(path, limits, media)
        size = vision_tokens.shrink_size(clip.width, clip.height, limits.longest)
        tokens = vision_tokens.video_tokens(*size, count, media)
        yield PreparedAttachment(
            path, tokens, _("{name}: {count} of {all} frames", name=path.name, count=count, all=clip.frames)
        )
    else:
        yield _prepare_image(path, limits, media)


def _prepare_image(path: Path, limits: AttachmentLimits, media: Media) -> PreparedAttachment:
    suffix = ".png" if path.suffix.lower() == ".png" else ".jpg"
    shrunk = decoders.shrink_image(path, limits.longest, suffix)
    if shrunk is None:
        return PreparedAttachment(path, vision_tokens.image_tokens(*images.image_size(path), media))
    data, original_size, size = shrunk
    to = uploads.derived_path(path, f"{path.stem}-{limits.longest}px{suffix}")
    to.write_bytes(data)
    return PreparedAttachment(
        to,
        vision_tokens.image_tokens(*size, media),
        _(
            "{name}: {had} scaled down to {now}",
            name=path.name,
            had=_format_size(*original_size),
            now=_format_size(*size),
        ),
    )


def _thin_video(path: Path, limits: AttachmentLimits, media: Media) -> tuple[Path, VideoInfo, int]:
    """Returns the thinned file (created once per choice of frames), the video's properties and the number of frames."""
    clip = decoders.probe_video(path)
    max_frames = min(limits.most_frames, media.video_frames)
    count = min(vision_tokens.sampled_frames(clip.seconds, limits.frames_per_s, max_frames), clip.frames)
    to = uploads.derived_path(path, f"{path.stem}-{count}-frames-{limits.longest}px.mp4")
    if not to.exists():
        count = decoders.thin_video(path, to, clip, count, limits.longest)
    return to, clip, count


def _prepare_pages(path: Path, limits: AttachmentLimits, media: Media, max_pages: int) -> Iterator[PreparedAttachment]:
    count = decoders.count_pages(path)
    if count > max_pages:
        raise UserError(
            _(
                "{name} has {count} pages; at most {limit} can be sent in one message.",
                name=path.name,
                count=count,
                limit=max_pages,
            ),
            _("Send fewer pages, or read the whole file in the Documents tab."),
        )
    for number in range(count):
        data, size = decoders.render_page(path, number, limits.longest)
        to = uploads.derived_path(path, f"{path.stem}-page-{number + 1}-{limits.longest}px.png")
        to.write_bytes(data)
        note = (
            _("{name}: {pages} sent as images", name=path.name, pages=format_page_count(count)) if number == 0 else ""
        )
        yield PreparedAttachment(to, vision_tokens.image_tokens(*size, media), note)


def _estimate_cost(path: Path, limits: AttachmentLimits, media: Media) -> AttachmentCost:
    if is_pdf(path):
        sizes = decoders.page_sizes(path, limits.longest)
        tokens = sum(vision_tokens.image_tokens(*size, media) for size in sizes)
        return AttachmentCost(path.name, tokens, format_page_count(len(sizes)), images=len(sizes))
    if mime_type(path).startswith("video/"):
        clip = decoders.probe_video(path)
        max_frames = min(limits.most_frames, media.video_frames)
        count = min(vision_tokens.sampled_frames(clip.seconds, limits.frames_per_s, max_frames), clip.frames)
        size = vision_tokens.shrink_size(clip.width, clip.height, limits.longest)
        note = _("{count} frames of {length}", count=count, length=format_duration(clip.seconds))
        return AttachmentCost(path.name, vision_tokens.video_tokens(*size, count, media), note, videos=1)
    original_size = images.image_size(path)
    size = vision_tokens.shrink_size(*original_size, limits.longest)
    note = _format_size(*original_size) + ("" if size == original_size else f" → {_format_size(*size)}")
    return AttachmentCost(path.name, vision_tokens.image_tokens(*size, media), note, images=1)


def format_page_count(count: int) -> str:
    return ngettext("{count} page", "{count} pages", count)


def _format_size(width: int, height: int) -> str:
    return f"{width} × {height}"


def format_duration(seconds: float) -> str:
    """Formats a duration, for example 12 s, 3:20 min, 2:00 h."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60}:{int(seconds) % 60:02} min"
    return f"{int(seconds) // 3600}:{int(seconds) % 3600 // 60:02} h"


def estimate_html(costs: list[AttachmentCost], text: str, pool: Pool | None) -> str:
    """Returns the token estimate as HTML; empty without attachments."""
    if not costs:
        return ""
    tokens = sum(cost.tokens for cost in costs)
    text_token_count = vision_tokens.text_tokens(text)
    total = _("≈ {tokens} vision tokens", tokens=_group_digits(tokens))
    if pool:
        total += _(" of {limit} that fit", limit=_group_digits(pool.max_model_len))
    files = " · ".join(f"{html.escape(cost.name)} {cost.note}: {cost.tokens}" for cost in costs[:6])
    more = _(" · and {count} more", count=len(costs) - 6) if len(costs) > 6 else ""
    return f'<div class="estimate"><b>{total}</b> <span>{files}{more}</span>{_limit_warning(costs, tokens + text_token_count, pool)}</div>'


def estimate_error_html(failure: UserError) -> str:
    return f'<div class="estimate" role="alert"><b class="bad">{html.escape(str(failure))}</b></div>'


def estimate_facts(costs: list[AttachmentCost], pool: Pool | None) -> dict[str, object]:
    """Returns the token estimate for programs."""
    return {
        "vision_tokens": sum(cost.tokens for cost in costs),
        "max_model_len": pool.max_model_len if pool else None,
        "files": [{"name": cost.name, "tokens": cost.tokens, "as_sent": cost.note} for cost in costs],
    }


def _group_digits(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def _limit_warning(costs: list[AttachmentCost], tokens: int, pool: Pool | None) -> str:
    if pool is None:
        return ""
    image_count, video_count = sum(cost.images for cost in costs), sum(cost.videos for cost in costs)
    note = ""
    if image_count > pool.media.images_per_prompt:
        note = _(
            "{pool} accepts at most {limit} images in one chat", pool=pool.name, limit=pool.media.images_per_prompt
        )
    elif video_count > pool.media.videos_per_prompt:
        note = _(
            "{pool} accepts at most {limit} videos in one chat", pool=pool.name, limit=pool.media.videos_per_prompt
        )
    elif tokens > pool.max_model_len:
        note = _("this exceeds the context length; reduce the image size in the settings")
    return f' <b class="bad" role="alert">{html.escape(note)}</b>' if note else ""
