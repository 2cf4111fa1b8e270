"""Bounds the host memory that pictures and videos take in a vLLM engine. vLLM imports it with --middleware=media_memory.MediaRoom.

vLLM decodes all pictures of all requests that have come and holds them until their request is done: 16 PNGs of 20 KB each
can be 2.4 GB. Here a large picture is scaled down right after it is decoded, few are decoded at the same time, and a
request waits while the room for media is taken. It waits in order of arrival where it must: the request that came first
always gets what it needs, so none waits for another one that waits for it.

Needs VLLM_MEDIA_CONNECTOR=bounded. Reads MANYEYES_MEDIA_MEMORY_MB, MANYEYES_MEDIA_PIXELS (a picture is scaled down to), and
MANYEYES_FRAME_PIXELS (a larger frame of a video is refused).
"""

import asyncio
import os
from collections.abc import Callable
from contextvars import ContextVar
from math import floor, sqrt
from typing import Any

from PIL import Image
from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY, MediaConnector
from vllm.multimodal.media.base import MediaWithBytes
from vllm.multimodal.media.image import ImageMediaIO
from vllm.multimodal.media.video import VideoMediaIO
from vllm.multimodal.video_decoders import opencv, torchcodec

ROOM_BYTES = int(os.environ["MANYEYES_MEDIA_MEMORY_MB"]) * 1024**2
PICTURE_PIXELS = int(os.environ["MANYEYES_MEDIA_PIXELS"])
FRAME_PIXELS = int(os.environ["MANYEYES_FRAME_PIXELS"])
BYTES_A_PIXEL = 18
"""3 decoded, 12 as patches in bfloat16 (each of two equal frames), and what is copied on the way; measured: 17."""
BYTES_A_BODY_BYTE = 3
"""The body, its strings, and the files in them."""
FACTOR = 32
"""Sides of a picture become multiples of this: two patches of 16."""


class Room:
    """Bytes that requests hold, by request, the first that came first."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.held: dict[object, int] = {}
        self._changed = asyncio.Event()

    async def take(self, request: object, count: int) -> None:
        """Returns once `count` bytes are free, or when this request is the first of all that hold some."""
        while not self._may(request, count):
            self._changed.clear()
            await self._changed.wait()
        self.held[request] = self.held.get(request, 0) + count

    def give_back(self, request: object, count: int) -> None:
        if request in self.held:
            self.held[request] -= count
            self._changed.set()

    def leave(self, request: object) -> None:
        """The request is done."""
        if self.held.pop(request, None) is not None:
            self._changed.set()

    def _may(self, request: object, count: int) -> bool:
        first = next(iter(self.held), request)
        return request is first or sum(self.held.values()) + count <= self.size


ROOM = Room(ROOM_BYTES)
REQUEST: ContextVar[object] = ContextVar("request")


class MediaRoom:
    """ASGI middleware: what a request has taken is free again when it is done, however it ends."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self._app = app

    async def __call__(self, scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        request = object()
        token = REQUEST.set(request)
        try:
            await ROOM.take(request, BYTES_A_BODY_BYTE * _length(scope))
            await self._app(scope, receive, send)
        finally:
            REQUEST.reset(token)
            ROOM.leave(request)


def _length(scope: dict[str, Any]) -> int:
    said = dict(scope["headers"]).get(b"content-length", b"0")
    return int(said) if said.isdigit() else 0


@MEDIA_CONNECTOR_REGISTRY.register("bounded")
class BoundedConnector(MediaConnector):  # type: ignore[misc]
    """vLLM's own, which takes room before it decodes and afterwards gives back what was not needed."""

    async def load_from_url_async(self, url: str, media_io: Any, **more: Any) -> Any:
        if isinstance(media_io, ImageMediaIO):
            most = PICTURE_PIXELS * BYTES_A_PIXEL
            reader: Any = Picture(media_io)
        elif isinstance(media_io, VideoMediaIO):
            frames = max(1, int(media_io.kwargs.get("max_frames", media_io.num_frames)))
            most = frames * FRAME_PIXELS * 3
            media_io.image_io = Picture(media_io.image_io)  # of a stack of pictures that is sent as a video
            reader = media_io
        else:
            return await super().load_from_url_async(url, media_io, **more)
        request = REQUEST.get(None)
        if request is None:
            return await super().load_from_url_async(url, reader, **more)
        await ROOM.take(request, most)
        loaded = await super().load_from_url_async(url, reader, **more)
        ROOM.give_back(request, most - _bytes(loaded))
        return loaded


class Picture:
    """Reads a picture as `inner` does, and scales a large one down as the model's own processor would next."""

    def __init__(self, inner: ImageMediaIO) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def load_bytes(self, data: bytes) -> Any:
        return self._scaled(self._inner.load_bytes, data)

    def load_base64(self, media_type: str, data: str) -> Any:
        return self._scaled(self._inner.load_base64, media_type, data)

    def load_file(self, filepath: Any) -> Any:
        return self._scaled(self._inner.load_file, filepath)

    def _scaled(self, load: Callable[..., MediaWithBytes[Image.Image]], *arguments: Any) -> Any:
        try:
            loaded = load(*arguments)
        except Image.DecompressionBombError as error:
            # Pillow's own limit, before vLLM's: to the client a 400, as that one is.
            raise ValueError(f"Failed to load image: {error}") from error
        width, height = loaded.media.size
        if width * height > PICTURE_PIXELS:
            loaded.media = loaded.media.resize(fitted(width, height), Image.Resampling.BICUBIC)
        return loaded


def fitted(width: int, height: int) -> tuple[int, int]:
    """Qwen3-VL's smart_resize for a picture that is too large: the same shape, multiples of FACTOR, at most PICTURE_PIXELS."""
    shrink = sqrt(width * height / PICTURE_PIXELS)
    sides = (max(FACTOR, floor(side / shrink / FACTOR) * FACTOR) for side in (width, height))
    wide, high = sides
    return wide, high


def _bytes(loaded: Any) -> int:
    media = loaded.media
    if isinstance(media, Image.Image):
        return media.width * media.height * BYTES_A_PIXEL
    return int(getattr(media[0], "nbytes", 0))


def _check_frame(width: int, height: int) -> None:
    if width * height > FRAME_PIXELS:
        raise ValueError(
            f"Video frame dimensions {width}x{height} ({width * height} pixels) exceed the maximum of {FRAME_PIXELS} pixels."
        )


# All frames of a video are decoded before one is scaled down, so they must be smaller than a picture.
for decoder in (opencv, torchcodec):
    decoder.check_frame_pixel_limit = _check_frame
