"""What users do: conversations of turns, the same for every gateway, made from a seed alone.

Pictures are JPEGs of about 150 KB (200 KB as base64), each with bytes of its own.
"""

import base64
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from PIL import Image

from benchmarks.gateways.gateway import BUILD
from loadtest.content import question, sentence


@dataclass(frozen=True)
class WorkloadTurn:
    """One question; `picture` is the number of a generated picture (pictures.py), or None."""

    text: str
    picture: int | None = None


@dataclass(frozen=True)
class WorkloadConversation:
    """Turns of one chat. Each is sent with everything before it, as OpenAI clients do."""

    name: str
    turns: tuple[WorkloadTurn, ...]


@dataclass(frozen=True)
class BenchmarkWorkload:
    """`conversations(seed, user, number)`: the n-th conversation of a user.

    A user has one at a time, and starts the next when the last one is answered (a closed loop): every gateway gets exactly
    the same requests, and a slow one takes longer. `think_s`: the pause before a user's next turn lies between half of
    that and one and a half.
    """

    name: str
    title: str
    users_per_engine: int
    conversations_per_user: int
    think_s: float
    max_tokens: int
    conversation: Callable[[int, int, int], WorkloadConversation]


PICTURE_SIZE = (896, 672)
PICTURE_FOLDER = BUILD / "pictures"


def jpeg(seed: int, number: int) -> bytes:
    """Soft shapes under grain, 896 x 672: what a photograph weighs, and the same for the same seed and number."""
    random = Random(f"picture {seed} {number}")
    shapes = Image.frombytes("RGB", (14, 10), random.randbytes(14 * 10 * 3)).resize(
        PICTURE_SIZE, Image.Resampling.BICUBIC
    )
    width, height = PICTURE_SIZE
    grain = Image.frombytes("RGB", (width // 2, height // 2), random.randbytes(width * height * 3 // 4)).resize(
        PICTURE_SIZE
    )
    made = io.BytesIO()
    Image.blend(shapes, grain, 0.22).save(made, "JPEG", quality=84)
    return made.getvalue()


def data_url(seed: int, number: int) -> str:
    """The picture as a client sends it; kept in build/bench/pictures/."""
    file: Path = PICTURE_FOLDER / f"{seed}-{number}.jpg"
    if not file.exists():
        PICTURE_FOLDER.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}.part")
        part.write_bytes(jpeg(seed, number))
        part.replace(file)
    return "data:image/jpeg;base64," + base64.b64encode(file.read_bytes()).decode()


CHAT_TURNS = 6


def chat_about_picture(seed: int, user: int, number: int) -> WorkloadConversation:
    random = Random(f"chat {seed} {user} {number}")
    first = WorkloadTurn(f"Look at this picture. {question(random, 12)}", picture=1_000 * user + number)
    return WorkloadConversation(
        f"{user}-{number}", (first, *(WorkloadTurn(question(random, 16)) for _ in range(CHAT_TURNS - 1)))
    )


CHAT = BenchmarkWorkload(
    name="chat",
    title="Six turns about one picture",
    users_per_engine=12,
    conversations_per_user=3,
    think_s=0.1,
    max_tokens=32,
    conversation=chat_about_picture,
)


def single_picture(seed: int, user: int, number: int) -> WorkloadConversation:
    random = Random(f"images {seed} {user} {number}")
    turn = WorkloadTurn(f"Describe this picture. {question(random, 12)}", picture=100_000 + 1_000 * user + number)
    return WorkloadConversation(f"{user}-{number}", (turn,))


IMAGES = BenchmarkWorkload(
    name="images",
    title="Single pictures, all different",
    users_per_engine=16,
    conversations_per_user=8,
    think_s=0.1,
    max_tokens=32,
    conversation=single_picture,
)


DOCUMENT_PICTURE = 900_000


def hot_document(seed: int, user: int, number: int) -> WorkloadConversation:
    random = Random(f"document {seed} {user} {number}")
    return WorkloadConversation(f"{user}-{number}", (WorkloadTurn(question(random, 16), picture=DOCUMENT_PICTURE),))


DOCUMENT = BenchmarkWorkload(
    name="document",
    title="One document, asked by everybody",
    users_per_engine=16,
    conversations_per_user=12,
    think_s=0.1,
    max_tokens=32,
    conversation=hot_document,
)


TEXT_TURNS = 4


def chat_in_text(seed: int, user: int, number: int) -> WorkloadConversation:
    random = Random(f"text {seed} {user} {number}")
    first = "Hello, can you help me with something?" if (user + number) % 2 else sentence(random, 40)
    return WorkloadConversation(
        f"{user}-{number}", (WorkloadTurn(first), *(WorkloadTurn(question(random, 30)) for _ in range(TEXT_TURNS - 1)))
    )


TEXT = BenchmarkWorkload(
    name="text",
    title="Chats without pictures",
    users_per_engine=16,
    conversations_per_user=4,
    think_s=0.1,
    max_tokens=32,
    conversation=chat_in_text,
)


ALL = {work.name: work for work in (CHAT, IMAGES, DOCUMENT, TEXT)}
