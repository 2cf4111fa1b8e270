"""Chat requests of an exact size: the third message of a chat about one picture."""

import base64
from random import Random

import orjson

from benchmarks.gateways.gateway import MODEL
from loadtest.content import question


def chat_body(size: int, number: int, stream: bool = False, picture_url: str | None = None) -> bytes:
    """`size` bytes of JSON, different for each number. With `picture_url` that picture, and whatever size it makes."""
    random = Random(f"body {size} {number}")

    def made(url: str) -> bytes:
        picture = {"type": "image_url", "image_url": {"url": url}}
        first = [picture, {"type": "text", "text": question(Random(f"first {number}"), 12)}]
        return orjson.dumps(
            {
                "messages": [
                    {"role": "user", "content": first},
                    {"role": "assistant", "content": question(Random(f"answer {number}"), 32)},
                    {"role": "user", "content": question(Random(f"second {number}"), 16)},
                ],
                "model": MODEL,
                "max_tokens": 32,
                "stream": stream,
            }
        )

    if picture_url:
        return made(picture_url)
    start = "data:image/jpeg;base64,"
    room = size - len(made(start))
    if room < 0:
        raise ValueError(f"a chat about a picture has at least {size - room} bytes, wanted {size}")
    return made(start + base64.b64encode(random.randbytes(room * 3 // 4 + 3)).decode()[:room])
