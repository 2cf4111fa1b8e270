"""The chat on the page as messages for the gateway.

Gradio hands the chat over as a list of {"role", "content": [item, ...]}, where an item is
{"type": "text", "text"} or {"type": "file", "file": {"path", ...}, "alt_text"}.
In an assistant's message the first item is the answer; what follows is the page's own note under it.
The chat lives in the browser, so a restart of the page loses nothing but the files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from webui import media
from webui.failure import Failure

Message = dict[str, Any]
TEXT_OVERHEAD = 2048  # bytes of a request beside its messages: model, sampling, quotes


def user_message(text: str, files: list[str]) -> Message:
    """What a person sent, as the chat shows it: the files, then the text."""
    content: list[Message] = [{"path": path, "alt_text": Path(path).name} for path in files]
    if text.strip():
        content.append({"type": "text", "text": text})
    return {"role": "user", "content": content}


def assistant_message(text: str, note: str) -> Message:
    """An answer as the chat shows it; `note` is HTML and may be empty."""
    return {"role": "assistant", "content": [{"type": "text", "text": text}, {"type": "text", "text": note}]}


def sent(message: Message) -> dict[str, Any]:
    """A user's message as the value of the box it was typed in."""
    return {"text": "\n".join(_texts(message)), "files": [str(path) for path in _files(message)]}


def answered(history: list[Message]) -> list[Message]:
    """`history` without the questions that got no answer at all (their text is back in the box)."""
    kept: list[Message] = []
    for message in history:
        if message["role"] == "assistant" and not answer_text(message):
            if kept and kept[-1]["role"] == "user":
                kept.pop()
        else:
            kept.append(message)
    return kept


def answer_text(message: Message) -> str:
    first = message["content"][0] if message["content"] else {}
    return str(first.get("text", ""))


def wire_bytes(history: list[Message], system: str) -> int:
    """About how long the request body gets; a little more rather than a little less."""
    total = TEXT_OVERHEAD + _text_bytes(system)
    for message in history:
        if message["role"] == "assistant":
            total += _text_bytes(answer_text(message))
        else:
            total += sum(_text_bytes(text) for text in _texts(message))
            total += sum(media.wire_bytes(path) + 64 for path in _files(message))
    return total


def check_size(history: list[Message], system: str, max_bytes: int) -> None:
    """Raises a Failure when the body would be over the gateway's limit."""
    size = wire_bytes(history, system)
    if size > max_bytes:
        mb = 1024 * 1024
        raise Failure(
            f"This chat, with its pictures and videos, is {size / mb:.1f} MB to send; the limit is {max_bytes // mb} MB.",
            "Send fewer or smaller files, or begin a new chat.",
        )


def to_openai(history: list[Message], system: str) -> list[Message]:
    """OpenAI's messages: every turn with its pictures and videos as `data:` URLs (reads the files)."""
    messages: list[Message] = [{"role": "system", "content": system.strip()}] if system.strip() else []
    for message in history:
        if message["role"] == "assistant":
            messages.append({"role": "assistant", "content": answer_text(message)})
            continue
        files = [_media_part(path) for path in _files(message)]
        text = "\n".join(_texts(message))
        if files:
            messages.append({"role": "user", "content": [*files, *([{"type": "text", "text": text}] if text else [])]})
        else:
            messages.append({"role": "user", "content": text})
    return messages


def _media_part(path: Path) -> Message:
    kind = "image_url" if media.mime_type(path).startswith("image/") else "video_url"
    return {"type": kind, kind: {"url": media.data_url(path)}}


def _texts(message: Message) -> Iterator[str]:
    return (item["text"] for item in message["content"] if item.get("type") == "text")


def _files(message: Message) -> Iterator[Path]:
    for item in message["content"]:
        if "path" in item:  # as user_message() makes it
            yield Path(item["path"])
        elif item.get("type") == "file":  # as Gradio hands it back
            yield Path(item["file"]["path"])


def _text_bytes(text: str) -> int:
    return len(json.dumps(text, ensure_ascii=False).encode()) + 64
