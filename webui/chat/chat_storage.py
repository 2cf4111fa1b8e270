"""One chat as the visitor's own browser stores it (chats.js has the list), and as a file: Markdown to read, JSON to bring back.

Files stay on the server for some hours; the browser keeps only their paths, and an old chat says which of them are gone.
"""

import base64
import binascii
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from webui.auth import uploads
from webui.chat import message_builder
from webui.chat.message_builder import Message
from webui.chat.streamed_answer import strip_switch_marks
from webui.files import attachments
from webui.i18n.translations import _
from webui.user_error import UserError

TITLE_LENGTH = 46
EXPORT_KIND = "manyeyes-chat"
MAX_IMPORT_BYTES = 100 * 1024 * 1024


def pack_chat(history: list[Message]) -> dict[str, Any]:
    """{"title", "messages"}: what a browser keeps."""
    messages = [_pack_message(message, message_builder.raw_text(message), str) for message in history]
    return {"title": chat_title(history), "messages": messages}


def unpack_chat(chat: object) -> list[Message]:
    """The messages as the page shows them; empty for anything that `pack_chat` did not make."""
    messages = chat.get("messages") if isinstance(chat, dict) else None
    if not isinstance(messages, list):
        return []
    return [_unpack_message(message) for message in messages if isinstance(message, dict)]


def chat_title(history: list[Message]) -> str:
    """The first words of the first question, or the name of its file."""
    for message in history:
        if message["role"] == "user":
            words = " ".join(message_builder.message_text(message).split())
            names = [path.name for path in message_builder.message_files(message)]
            found = words or ", ".join(names) or _("Chat")
            return found if len(found) <= TITLE_LENGTH else f"{found[: TITLE_LENGTH - 1].rstrip()}…"
    return _("Chat")


def _pack_message(message: Message, text: str, pack_file: Callable[[Path], object]) -> dict[str, Any]:
    if message["role"] == "user":
        files = [pack_file(path) for path in message_builder.message_files(message)]
        return {"role": "user", "text": message_builder.message_text(message), "files": files}
    if message_builder.is_reasoning(message):
        return {"role": "thinking", "text": text, "title": str(message["metadata"]["title"])}
    return {"role": "assistant", "text": text, "note": message_builder.note_text(message)}


def _unpack_message(message: Message) -> Message:
    text, files = str(message.get("text", "")), list[str]()
    if message.get("role") == "user":
        text, files = _held_files(text, message.get("files"))
    return _shown_message(str(message.get("role")), text, files, message)


def _held_files(text: str, files: object) -> tuple[str, list[str]]:
    """The files that the page still holds, and the text with the names of the others."""
    held, gone = [], []
    for path in files if isinstance(files, list) else []:
        try:
            held.append(str(uploads.resolve_upload(str(path))))
        except UserError:
            gone.append(Path(str(path)).name)
    if gone:
        note = _("No longer held by the page: {names}", names=", ".join(gone))
        text = f"{text}\n\n({note})".strip()
    return text, held


def _shown_message(role: str, text: str, files: list[str], message: Message) -> Message:
    if role == "user":
        return message_builder.user_message(text, files)
    if role == "thinking":
        title = str(message.get("title") or _("Thinking"))
        return message_builder.reasoning_message(text, 0) | {"metadata": {"title": title, "status": "done"}}
    return message_builder.assistant_message(text, str(message.get("note", "")))


def unreadable_chat_error() -> UserError:
    return UserError(_("This is not a chat that was saved here."), _("Choose a JSON file that the page saved."))


def export_markdown(history: list[Message], name: str) -> str:
    """Questions as headings, answers as they stand, notes in italics, pictures by name."""
    parts = [f"# {name}"]
    for message in history:
        if message["role"] == "user":
            parts.append("## Question")
            parts += [f"*Attached: {path.name}*" for path in message_builder.message_files(message)]
            if words := message_builder.message_text(message):
                parts.append(words)
        elif message_builder.is_reasoning(message):
            words = message_builder.answer_text(message)
            parts.append(f"<details><summary>{message['metadata']['title']}</summary>\n\n{words}\n\n</details>")
        else:
            parts += ["## Answer", message_builder.answer_text(message)]
            if note := " ".join(message_builder.note_text(message).replace("\\", "").split()):
                parts.append(f"*{note.replace('**', '')}*")
    return "\n\n".join(part for part in parts if part) + "\n"


def export_json(history: list[Message], name: str) -> str:
    """Everything, with the files inside."""
    return json.dumps(
        {
            "kind": EXPORT_KIND,
            "version": 1,
            "title": name,
            "messages": [_export_message(message) for message in history],
        },
        ensure_ascii=False,
        indent=1,
    )


def parse_export(text: str) -> list[Message]:
    """The chat that `export_json` wrote, its files put among the uploads. Raises UserError."""
    try:
        found = json.loads(text)
        if found["kind"] != EXPORT_KIND:
            raise unreadable_chat_error()
        return [import_message(message) for message in found["messages"]]
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        raise unreadable_chat_error() from None


def read_export(path: Path) -> list[Message]:
    """Raises UserError."""
    if path.stat().st_size > MAX_IMPORT_BYTES:
        raise UserError(
            _("{name} is larger than {most} MB.", name=path.name, most=MAX_IMPORT_BYTES // 1024 // 1024),
            _("Choose a smaller file."),
        )
    try:
        return parse_export(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise unreadable_chat_error() from None


def _export_message(message: Message) -> dict[str, Any]:
    return _pack_message(message, message_builder.answer_text(message), _export_file)


def _export_file(path: Path) -> dict[str, str | None]:
    try:
        data = uploads.resolve_upload(path).read_bytes()
    except UserError:
        return {"name": path.name, "data": None}
    return {"name": path.name, "data": base64.b64encode(data).decode()}


def import_message(message: dict[str, Any]) -> Message:
    role, text = message["role"], strip_switch_marks(str(message["text"]))
    if role not in ("user", "thinking", "assistant"):
        raise unreadable_chat_error()
    files = [_import_file(file) for file in message.get("files", []) if file["data"]]
    return _shown_message(role, text, files, message)


def _import_file(file: dict[str, Any]) -> str:
    name = Path(str(file["name"])).name
    attachments.mime_type(Path(name))  # UserError for anything that is neither picture nor video
    return str(uploads.store_upload(name, base64.b64decode(file["data"], validate=True)))
