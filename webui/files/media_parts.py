"""Pictures and videos: their kind, their size on the wire, and their `data:` URL."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from webui.i18n.translations import _
from webui.user_error import UserError

# What vLLM's readers (Pillow, OpenCV) take. Told by the suffix, because a slim Python image knows no /etc/mime.types.
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
    """`image/...` or `video/...`; UserError for any other file."""
    suffix = path.suffix.lower()
    kind = IMAGE_TYPES.get(suffix) or VIDEO_TYPES.get(suffix)
    if kind is None:
        raise UserError(
            _("{name} is neither a picture nor a video that can be sent.", name=path.name),
            _("Send one of: {kinds}.", kinds=", ".join(suffix.removeprefix(".") for suffix in MEDIA_SUFFIXES)),
        )
    return kind


def wire_bytes(path: Path) -> int:
    """The length of `data_url(path)`, without reading the file: base64 makes 4 characters of 3 bytes."""
    return len(f"data:{mime_type(path)};base64,") + 4 * -(-_size(path) // 3)


def data_url(path: Path) -> str:
    kind = mime_type(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise _missing_file_error(path) from None
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def media_part(path: Path) -> dict[str, Any]:
    """The file as a part of one of OpenAI's messages."""
    kind = "image_url" if mime_type(path).startswith("image/") else "video_url"
    return {"type": kind, kind: {"url": data_url(path)}}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        raise _missing_file_error(path) from None


def _missing_file_error(path: Path) -> UserError:
    return UserError(_("The page no longer holds {name}.", name=path.name), _("Begin a new chat and attach it again."))
