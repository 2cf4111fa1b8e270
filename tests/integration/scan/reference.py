"""What an engine does with a request body: Python's JSON parser, vLLM's choice of images, Pillow's size of each.

`faults` compares it with the facts that the gateway reads. Source of the rules: vLLM 0.32, renderers/chat_utils.py
(MM_PARSER_MAP) and multimodal/media (connector.py, image.py).
"""

import binascii
import io
import json
import warnings
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""The formats that manyeyes/engine/pod/media_memory.py leaves to vLLM."""
Image.MAX_IMAGE_PIXELS = None


def parsed(document: bytes) -> dict[str, Any] | None:
    """The body, or None if it is not JSON. Both readers replace invalid UTF-8, which an engine refuses."""
    try:
        body = json.loads(document.decode("utf-8", "replace"), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def images(body: dict[str, Any]) -> Iterator[str]:
    """The image URLs that vLLM loads, in chat and in responses."""
    for key in ("messages", "input"):
        items = body.get(key)
        for item in items if isinstance(items, list) else []:
            if not isinstance(item, dict):
                continue
            for field in ("content", "output"):
                parts = item.get(field)
                for part in parts if isinstance(parts, list) else [parts]:
                    url = _image_url(part)
                    if isinstance(url, str):
                        yield url


def _image_url(part: Any) -> Any:
    if not isinstance(part, dict) or "image_url" not in part:
        return None
    kind, image = part.get("type"), part["image_url"]
    if kind == "image_url":
        return image.get("url") if isinstance(image, dict) else None
    if kind in ("input_image", "computer_screenshot"):
        return image
    if kind is None:
        return image.get("url") if isinstance(image, dict) else image
    return None


def decoded_size(url: str) -> tuple[int, int] | None:
    """Width and height that an engine finds in a data: URL, or None if it answers with an error."""
    head, comma, text = url[5:].partition(",")
    if url[:5].lower() != "data:" or not comma or not head.endswith(";base64"):
        return None
    try:
        data = b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return file_size(data)


def file_size(data: bytes) -> tuple[int, int] | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return image.size
    except Exception:  # the engine answers with an error; Pillow raises all kinds for damaged files
        return None


def _readable(link: str) -> str:
    """Both readers replace invalid UTF-8, but with different numbers of characters."""
    return link.replace("\ufffd", "")


def faults(document: bytes, found: dict[str, Any]) -> list[str]:
    """What the gateway let pass that it should have seen."""
    if "refused" in found:
        return []
    body = parsed(document)
    if body is None:
        return [] if len(document) > 4096 else ["a body that no engine accepts was read"]
    model = body.get("model")
    problems = []
    if found["model"] != (model if isinstance(model, str) else None) and not (found["model"] or "").startswith("\0"):
        problems.append(f"model {found['model']!r}, not {model!r}")
    if found["stream"] != (body.get("stream") is True):
        problems.append("stream")
    sizes = [width * height for _, width, height in found["sizes"]]
    links = {_readable(link) for link in found["links"]}
    for url in images(body):
        if _readable(url) in links or "" in links:
            continue  # it is checked as a link, also `data:` with a space in its type
        if size := decoded_size(url):
            pixels = size[0] * size[1]
            if not any(pixels <= seen for seen in sizes):
                problems.append(f"an image of {size[0]} x {size[1]} among {found['sizes']}")
        elif url[:5].lower() != "data:":
            problems.append(f"the link {url[:60]!r}")
    return problems
