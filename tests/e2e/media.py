"""Pictures and a video as an OpenAI client sends them."""

import base64
import io
from typing import Any

from PIL import Image

# 12 frames of 64 x 64, H.264 in MP4, made with OpenCV; too small to be worth a fixture file.


def picture(width: int = 448, height: int = 336, seed: int = 0) -> dict[str, Any]:
    """A JPEG of noise; another seed is another picture."""
    image = Image.effect_noise((width, height), 40 + seed % 60).convert("RGB")
    file = io.BytesIO()
    image.save(file, "JPEG")
    return {"type": "image_url", "image_url": {"url": data_url("image/jpeg", file.getvalue())}}


def data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def about(*parts: dict[str, Any], text: str = "What is this?") -> list[Any]:
    """One user turn with these parts and a question."""
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def one_bit_png(width: int, height: int) -> bytes:
    """All black: 1/1000 byte a pixel, so that a picture of any size is a small file."""
    file = io.BytesIO()
    with Image.new("1", (width, height)) as image:
        image.save(file, "PNG")
    return file.getvalue()
