"""Random request bodies with images, hostile in every layer: the file, its base64, the JSON around it."""

import base64
import io
import json
import random
from typing import Any

from PIL import Image

from tests.integration.scan.images import bmp, chunk, gif, jpeg, png, segment, tiff, webp

NUMBERS = [0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**24 - 1, 2**31 - 1, 2**31, 2**32 - 1]


def originals() -> list[bytes]:
    """One small file of each format and variant."""
    files = [
        png(8, 6),
        jpeg(8, 6),
        webp(8, 6),
        gif(8, 6, (0, 0, 8, 6)),
        bmp(8, 6),
        tiff([(256, 3, 1, 8), (257, 4, 1, 6)]),
    ]
    files += [jpeg(8, 6, segment(0xE0, b"JFIF\0" + b"\0" * 9)), gif(8, 6, (0, 0, 8, 6), b"!\xf9\4\0\0\0\0\0")]
    files += [png(8, 6, before=chunk(b"gAMA", b"\0\0\1\0")), tiff([(256, 3, 1, 8), (257, 4, 1, 6)], ">", gap=20)]
    for kind, options in [
        ("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {}), ("WEBP", {"lossless": True}),
        ("GIF", {}), ("BMP", {}), ("TIFF", {}), ("AVIF", {}),
    ]:  # fmt: skip
        file = io.BytesIO()
        Image.new("RGB", (8, 6), 1).save(file, kind, **options)
        files.append(file.getvalue())
    return files


class Mutator:
    """Random bodies from a seed and a list of files, which may grow."""

    def __init__(self, seed: int, files: list[bytes]) -> None:
        self.random = random.Random(seed)
        self.files = files

    def file(self) -> bytes:
        """A file with up to four changes."""
        data = bytearray(self.random.choice(self.files))
        for _ in range(self.random.randrange(5)):
            self._change(data)
        return bytes(data)

    def _change(self, data: bytearray) -> None:
        at = self.random.randrange(len(data) + 1)
        end = min(len(data), at + self.random.choice([1, 2, 4, 12]))
        kind = self.random.randrange(7)
        if kind == 0:
            data[at:end] = self.random.randbytes(end - at)
        elif kind == 1:
            del data[at:end]
        elif kind == 2:
            data[at:at] = data[self.random.randrange(len(data) + 1) :][: self.random.randrange(64)]
        elif kind == 3:
            del data[at:]
        elif kind == 4:
            number, size = self.random.choice(NUMBERS), self.random.choice([1, 2, 4])
            order: Any = self.random.choice(["big", "little"])
            data[at : at + size] = (number % 256**size).to_bytes(size, order)
        elif kind == 5:
            other = self.random.choice(self.files)
            data[at:at] = other[self.random.randrange(len(other)) :][:80]
        else:
            data += b"\0" * self.random.choice([1, 900, 6000])

    def url(self) -> str:
        head = self.random.choice(
            ["data:image/png;base64,"] * 6
            + [
                "data:;base64,",
                "DATA:x;base64,",
                "data:video/jpeg;base64,",
                "data:a;b;base64,",
                "data:image/png,",
                " data:a;base64,",
            ]
            + ["data:image/png;Base64,", "http://h/", "data:a,b;base64,"]
        )
        text = base64.b64encode(self.file()).decode()
        if not self.random.randrange(8):
            at = self.random.randrange(len(text) + 1)
            text = text[:at] + self.random.choice(["\n", " ", "=", "-", "%2B", ",", "é", "A", "\0"]) + text[at:]
        return head + text

    def part(self) -> Any:
        url = self.url()
        return self.random.choice(
            [
                {"type": "image_url", "image_url": {"url": url}},
                {"type": "image_url", "image_url": {"url": "data:,", "detail": {"url": url}}},
                {"type": "input_image", "image_url": url},
                {"image_url": url},
                {"image_url": {"url": url}},
                {"type": "video_url", "video_url": {"url": url}},
                {"type": "text", "text": url},
                {"type": None, "image_url": url, "video_url": url},
                {"type": ["x"], "image_url": [url]},
                url,
            ]
        )

    def document(self) -> bytes:
        """A body; now and then damaged, so that most parsers refuse it."""
        chance = self.random
        message: dict[str, Any] = {"role": chance.choice(["user", "tool", "system", None, 5])}
        message[chance.choice(["content", "content", "output"])] = [self.part() for _ in range(chance.randrange(1, 5))]
        if not chance.randrange(6):
            message["content"] = self.part()
        body: dict[str, Any] = {"model": "m", chance.choice(["messages", "messages", "input"]): [message]}
        if not chance.randrange(4):
            body |= {"n": chance.choice([1, 3, "4", 1e9, None]), "stream": chance.choice([True, False, "true"])}
        text = json.dumps(body, ensure_ascii=chance.random() < 0.5)
        if not chance.randrange(3):
            text = text.replace("/", "\\/")
        if not chance.randrange(4):
            letter = chance.choice("dAmuti/")
            text = text.replace(letter, f"\\u{ord(letter):04x}", chance.randrange(1, 6))
        if not chance.randrange(6):
            text = text.replace('"image_url":', f'"image_url":{json.dumps(self.part())},"image_url":', 1)
        document = bytearray(text.encode())
        if not chance.randrange(4):
            self._change(document)
        return bytes(document)
