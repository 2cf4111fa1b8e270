"""Takes a model's thinking out of its answer, where the engine did not do so.

Thinking models of Qwen3-VL have `<think>` in their prompt already, so that an answer may hold only the closing tag.
"""

from __future__ import annotations

OPEN, CLOSE = "<think>", "</think>"


def split(text: str) -> tuple[str, str]:
    """(thinking, answer); the answer is empty while the thinking is not closed."""
    begun = text.lstrip()
    if CLOSE in text:
        thought, _, answer = text.partition(CLOSE)
        return thought.lstrip().removeprefix(OPEN).strip(), answer.lstrip()
    if begun.startswith(OPEN):
        return begun.removeprefix(OPEN).strip(), ""
    if begun and OPEN.startswith(begun):  # the tag is still on its way
        return "", ""
    return "", text
