"""One chat in the form in which the visitor's own browser keeps it (chats.js has the list).

Files stay on the server for some hours; the browser keeps only their paths, and an old chat says which of them are gone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from webui.auth import upload_paths
from webui.chat import message_builder
from webui.chat.message_builder import Message
from webui.i18n.language import say
from webui.user_error import Failure

TITLE_LENGTH = 46


def slim(history: list[Message]) -> dict[str, Any]:
    """{"title", "messages"}: what a browser keeps."""
    return {"title": title(history), "messages": [_slim(message) for message in history]}


def whole(chat: object) -> list[Message]:
    """The messages as the page shows them; empty for anything that `slim` did not make."""
    messages = chat.get("messages") if isinstance(chat, dict) else None
    if not isinstance(messages, list):
        return []
    return [_whole(message) for message in messages if isinstance(message, dict)]


def title(history: list[Message]) -> str:
    """The first words of the first question, or the name of its file."""
    for message in history:
        if message["role"] == "user":
            words = " ".join(message_builder.text_of(message).split())
            names = [path.name for path in message_builder.files_of(message)]
            found = words or ", ".join(names) or say("Chat")
            return found if len(found) <= TITLE_LENGTH else f"{found[: TITLE_LENGTH - 1].rstrip()}…"
    return say("Chat")


def _slim(message: Message) -> Message:
    if message["role"] == "user":
        files = [str(path) for path in message_builder.files_of(message)]
        return {"role": "user", "text": message_builder.text_of(message), "files": files}
    first = message["content"][0] if message["content"] else {}
    text = str(first.get("text", ""))
    if message_builder.is_thought(message):
        return {"role": "thinking", "text": text, "title": message["metadata"]["title"]}
    return {"role": "assistant", "text": text, "note": message_builder.note_text(message)}


def _whole(message: Message) -> Message:
    text = str(message.get("text", ""))
    match message.get("role"):
        case "user":
            return _question(text, message.get("files"))
        case "thinking":
            found = message_builder.thought_message(text, 0)
            return found | {"metadata": {"title": str(message.get("title") or say("Thinking")), "status": "done"}}
    return message_builder.assistant_message(text, str(message.get("note", "")))


def _question(text: str, files: object) -> Message:
    held, gone = [], []
    for path in files if isinstance(files, list) else []:
        try:
            held.append(str(upload_paths.own(str(path))))
        except Failure:
            gone.append(Path(str(path)).name)
    if gone:
        text = f"{text}\n\n({say('No longer held by the page: {names}', names=', '.join(gone))})".strip()
    return message_builder.user_message(text, held)
