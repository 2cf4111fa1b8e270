"""Limits the host memory of images and videos in a vLLM engine. vLLM imports it with
--middleware=media_memory.MediaRoom.

vLLM decodes all images of all requests and holds them until their request is done: 16 PNGs of 20 KB each can take 2.4
GB. This module scales a large image down right after it is decoded, decodes few images at the same time, and lets
requests wait while the memory budget is used up. The oldest request always gets the memory that it needs, so there is
no deadlock.

It needs VLLM_MEDIA_CONNECTOR=bounded. It reads MANYEYES_MEDIA_MEMORY_MB, MANYEYES_MEDIA_PIXELS (larger images are
scaled down) and MANYEYES_FRAME_PIXELS (videos with larger frames are rejected).
"""

import asyncio
import os
from collections.abc import Callable
from contextvars import ContextVar
from math import floor, sqrt
from typing import Any

from PIL import Image
from vllm.multimodal import image as vllm_image
from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY, MediaConnector
from vllm.multimodal.media.base import MediaWithBytes
from vllm.multimodal.media.image import ImageMediaIO
from vllm.multimodal.media.video import VideoMediaIO
from vllm.multimodal.video_decoders import opencv, torchcodec

BUDGET_BYTES = int(os.environ["MANYEYES_MEDIA_MEMORY_MB"]) * 1024**2
IMAGE_PIXELS = int(os.environ["MANYEYES_MEDIA_PIXELS"])
FRAME_PIXELS = int(os.environ["MANYEYES_FRAME_PIXELS"])
BYTES_PER_PIXEL = 18
"""3 decoded, 12 as patches in bfloat16 (two equal frames), and temporary copies. Measured: 17."""
BYTES_PER_BODY_BYTE = 3
"""The body, its strings, and the files in the strings."""
FACTOR = 32
"""The sides of an image become multiples of this: two patches of 16 pixels."""


# The formats whose size the gateway reads (nginx/njs/image_size.js). Pillow tries one format after the other, so with
# others a file could be a small image for the gateway and a large one here.
vllm_image.ALLOWED_IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")


class MemoryBudget:
    """The memory budget in bytes, and the bytes that each request uses, in order of arrival."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.used: dict[object, int] = {}
        self._changed = asyncio.Event()

    async def reserve(self, request: object, count: int) -> None:
        """Waits until `count` bytes are free, or until this request is the oldest of those that use memory."""
        while not self._is_allowed(request, count):
            self._changed.clear()
            await self._changed.wait()
        self.used[request] = self.used.get(request, 0) + count

    def release(self, request: object, count: int) -> None:
        if request in self.used:
            self.used[request] -= count
            self._changed.set()

    def release_all(self, request: object) -> None:
        """Frees all bytes of a request that is done."""
        if self.used.pop(request, None) is not None:
            self._changed.set()

    def _is_allowed(self, request: object, count: int) -> bool:
        first = next(iter(self.used), request)
        return request is first or sum(self.used.values()) + count <= self.size


BUDGET = MemoryBudget(BUDGET_BYTES)
REQUEST: ContextVar[object] = ContextVar("request")


class MediaRoom:
    """ASGI middleware that frees the memory of a request when it is done, also after an error."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self._app = app

    async def __call__(self, scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        request = object()
        token = REQUEST.set(request)
        try:
            await BUDGET.reserve(request, BYTES_PER_BODY_BYTE * _length(scope))
            await self._app(scope, receive, send)
        finally:
            REQUEST.reset(token)
            BUDGET.release_all(request)


def _length(scope: dict[str, Any]) -> int:
    length = dict(scope["headers"]).get(b"content-length", b"0")
    return int(length) if length.isdigit() else 0


@MEDIA_CONNECTOR_REGISTRY.register("bounded")
class BoundedConnector(MediaConnector):  # type: ignore[misc]
    """vLLM's connector, but it reserves memory before it decodes, and afterwards frees what was not needed."""

    async def load_from_url_async(self, url: str, media_io: Any, **options: Any) -> Any:
        if isinstance(media_io, ImageMediaIO):
            reserved = IMAGE_PIXELS * BYTES_PER_PIXEL
            reader: Any = ScaledImage(media_io)
        elif isinstance(media_io, VideoMediaIO):
            frames = max(1, int(media_io.kwargs.get("max_frames", media_io.num_frames)))
            reserved = frames * FRAME_PIXELS * 3
            media_io.image_io = ScaledImage(media_io.image_io)  # for a list of images that is sent as a video
            reader = media_io
        else:
            return await super().load_from_url_async(url, media_io, **options)
        request = REQUEST.get(None)
        if request is None:
            return await super().load_from_url_async(url, reader, **options)
        await BUDGET.reserve(request, reserved)
        loaded = await super().load_from_url_async(url, reader, **options)
        BUDGET.release(request, reserved - _bytes(loaded))
        return loaded


class ScaledImage:
    """Loads an image with `inner`, and scales a large image down like the model's processor."""

    def __init__(self, inner: ImageMediaIO) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def load_bytes(self, data: bytes) -> Any:
        return self._load_scaled(self._inner.load_bytes, data)

    def load_base64(self, media_type: str, data: str) -> Any:
        return self._load_scaled(self._inner.load_base64, media_type, data)

    def load_file(self, filepath: Any) -> Any:
        return self._load_scaled(self._inner.load_file, filepath)

    def _load_scaled(self, load: Callable[..., MediaWithBytes[Image.Image]], *arguments: Any) -> Any:
        try:
            loaded = load(*arguments)
        except Image.DecompressionBombError as error:
            # Pillow's limit is checked before vLLM's. ValueError makes it the same 400 for the client.
            raise ValueError(f"Failed to load image: {error}") from error
        width, height = loaded.media.size
        if width * height > IMAGE_PIXELS:
            loaded.media = loaded.media.resize(fitted(width, height), Image.Resampling.BICUBIC)
        return loaded


def fitted(width: int, height: int) -> tuple[int, int]:
    """Qwen3-VL's smart_resize for an image that is too large: same aspect ratio, multiples of FACTOR, at most
    IMAGE_PIXELS."""
    shrink = sqrt(width * height / IMAGE_PIXELS)
    new_sides = (max(FACTOR, floor(side / shrink / FACTOR) * FACTOR) for side in (width, height))
    new_width, new_height = new_sides
    return new_width, new_height


def _bytes(loaded: Any) -> int:
    media = loaded.media
    if isinstance(media, Image.Image):
        return media.width * media.height * BYTES_PER_PIXEL
    return int(getattr(media[0], "nbytes", 0))


def _check_frame(width: int, height: int) -> None:
    if width * height > FRAME_PIXELS:
        raise ValueError(
            f"Video frame dimensions {width}x{height} ({width * height} pixels) exceed the maximum of {FRAME_PIXELS} pixels."
        )


# All frames of a video are decoded before any is scaled down, so their limit is lower than that of images.
for decoder in (opencv, torchcodec):
    decoder.check_frame_pixel_limit = _check_frame
