"""A chat as a file: Markdown for people, JSON for programs and to be brought back."""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path
from typing import Any

from webui.auth import upload_paths
from webui.chat import message_builder
from webui.chat.message_builder import Message
from webui.chat.streamed_answer import unmarked
from webui.files import media_parts
from webui.i18n.language import say
from webui.user_error import Failure

KIND = "manyeyes-chat"
MOST_BYTES = 100 * 1024 * 1024


def unreadable() -> Failure:
    return Failure(say("This is not a chat that was saved here."), say("Choose a JSON file that the page saved."))


def to_markdown(history: list[Message], name: str) -> str:
    """Questions as headings, answers as they stand, notes in italics, pictures by name."""
    parts = [f"# {name}"]
    for message in history:
        if message["role"] == "user":
            parts.append("## Question")
            parts += [f"*Attached: {path.name}*" for path in message_builder.files_of(message)]
            if words := message_builder.text_of(message):
                parts.append(words)
        elif message_builder.is_thought(message):
            words = message_builder.answer_text(message)
            parts.append(f"<details><summary>{message['metadata']['title']}</summary>\n\n{words}\n\n</details>")
        else:
            parts += ["## Answer", message_builder.answer_text(message)]
            if said := " ".join(message_builder.note_text(message).replace("\\", "").split()):
                parts.append(f"*{said.replace('**', '')}*")
    return "\n\n".join(part for part in parts if part) + "\n"


def to_json(history: list[Message], name: str) -> str:
    """Everything, with the files inside."""
    return json.dumps(
        {"kind": KIND, "version": 1, "title": name, "messages": [_packed(message) for message in history]},
        ensure_ascii=False,
        indent=1,
    )


def from_json(text: str) -> list[Message]:
    """The chat that `to_json` wrote, its files put among the uploads. Raises Failure."""
    try:
        found = json.loads(text)
        if found["kind"] != KIND:
            raise unreadable()
        return [unpacked(message) for message in found["messages"]]
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        raise unreadable() from None


def read(path: Path) -> list[Message]:
    """Raises Failure."""
    if path.stat().st_size > MOST_BYTES:
        raise Failure(
            say("{name} is larger than {most} MB.", name=path.name, most=MOST_BYTES // 1024 // 1024),
            say("Choose a smaller file."),
        )
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise unreadable() from None


def _packed(message: Message) -> dict[str, Any]:
    if message["role"] == "user":
        files: list[dict[str, str | None]] = []
        for path in message_builder.files_of(message):
            try:
                files.append(
                    {"name": path.name, "data": base64.b64encode(upload_paths.own(path).read_bytes()).decode()}
                )
            except Failure:
                files.append({"name": path.name, "data": None})
        return {"role": "user", "text": message_builder.text_of(message), "files": files}
    if message_builder.is_thought(message):
        return {
            "role": "thinking",
            "text": message_builder.answer_text(message),
            "title": str(message["metadata"]["title"]),
        }
    return {
        "role": "assistant",
        "text": message_builder.answer_text(message),
        "note": message_builder.note_text(message),
    }


def unpacked(message: dict[str, Any]) -> Message:
    text = str(message["text"])
    match message["role"]:
        case "user":
            files = [_file(one) for one in message.get("files", []) if one["data"]]
            return message_builder.user_message(text, files)
        case "thinking":
            found = message_builder.thought_message(text, 0)
            return found | {"metadata": {"title": str(message["title"]), "status": "done"}}
        case "assistant":
            return message_builder.assistant_message(unmarked(text), str(message.get("note", "")))
    raise unreadable()


def _file(one: dict[str, Any]) -> str:
    name = Path(str(one["name"])).name
    media_parts.mime_type(Path(name))  # a Failure for anything that is neither picture nor video
    return str(upload_paths.place(name, base64.b64decode(one["data"], validate=True)))
