"""The answer: canned, the same for the same request, and it says what it is."""

from itertools import cycle, islice
from zlib import crc32

OPENING = "This answer is emulated: no model looked at your {what}."
FILLERS = (
    "Only the time it took is meant to resemble that of a real engine.",
    "Start an engine with a real model to read a real answer here.",
    "Every word of it was written before you asked.",
    "Ask as often as you like: the same question gets the same words.",
    "The numbers of tokens are estimates from lengths and sizes.",
)


def plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def what(images: int, videos: int) -> str:
    """What the question was about: its picture, pictures, video or, without any of them, the question."""
    media = ["picture" if images == 1 else "pictures"] * bool(images) + ["video" if videos == 1 else "videos"] * bool(
        videos
    )
    return " or ".join(media) or "question"


def canned(question: str, images: list[tuple[int, int]], videos: int) -> list[str]:
    """The words of the whole answer. `images` are widths and heights in pixels."""
    sentences = [OPENING.format(what=what(len(images), videos))]
    if images:
        sizes = ", ".join(f"{width} x {height}" for width, height in images)
        sentences.append(f"You sent {plural(len(images), 'picture')} of {sizes} pixels.")
    if videos:
        sentences.append(f"You sent {plural(videos, 'video')}.")
    sentences.append(f"Your text has {plural(len(question.split()), 'word')}.")
    start = crc32(question.encode(errors="replace")) % len(FILLERS)
    sentences += [FILLERS[(start + n) % len(FILLERS)] for n in range(2)]
    return " ".join(sentences).split()


def answer(words: list[str], least: int, most: int) -> tuple[list[str], str]:
    """The tokens to send, each with its leading blank, and the finish reason.

    Between `least` and `most` tokens: a short answer is said again from its beginning, a long one is cut.
    """
    length = min(max(len(words), least), most)
    tokens = [(" " if n else "") + word for n, word in enumerate(islice(cycle(words), length))]
    return tokens, "length" if length == most else "stop"
