"""Pictures from a seed: JPEGs of about 150 KB (200 KB as base64), each with bytes of its own."""

import base64
import io
import os
from pathlib import Path
from random import Random

from PIL import Image

from benchmarks.install_competitors import BUILD

SIZE = (896, 672)
FOLDER = BUILD / "pictures"


def jpeg(seed: int, number: int) -> bytes:
    """Soft shapes under grain, 896 x 672: what a photograph weighs, and the same for the same seed and number."""
    random = Random(f"picture {seed} {number}")
    shapes = Image.frombytes("RGB", (14, 10), random.randbytes(14 * 10 * 3)).resize(SIZE, Image.Resampling.BICUBIC)
    width, height = SIZE
    grain = Image.frombytes("RGB", (width // 2, height // 2), random.randbytes(width * height * 3 // 4)).resize(SIZE)
    made = io.BytesIO()
    Image.blend(shapes, grain, 0.22).save(made, "JPEG", quality=84)
    return made.getvalue()


def data_url(seed: int, number: int) -> str:
    """The picture as a client sends it; kept in build/bench/pictures/."""
    file: Path = FOLDER / f"{seed}-{number}.jpg"
    if not file.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}.part")
        part.write_bytes(jpeg(seed, number))
        part.replace(file)
    return "data:image/jpeg;base64," + base64.b64encode(file.read_bytes()).decode()
