"""Converts a chat to the form that the browser stores, to Markdown, to JSON that can be imported again, and to code.

chats.js stores the chats in the browser, with only the paths of their files. Files expire on the server after some
hours, and an old chat lists the missing files.
"""

import base64
import binascii
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from webui.auth import uploads
from webui.chat import message_builder
from webui.chat.completion_stream import ChatRequest, request_body
from webui.chat.message_builder import Message
from webui.chat.streamed_answer import strip_switch_marks
from webui.files import attachments
from webui.i18n import _
from webui.user_error import UserError

TITLE_LENGTH = 46
EXPORT_KIND = "manyeyes-chat"
MAX_IMPORT_BYTES = 100 * 1024 * 1024


def pack_chat(history: list[Message]) -> dict[str, Any]:
    """Returns {"title", "messages"}, the form that the browser stores."""
    messages = [_pack_message(message, message_builder.raw_text(message), str) for message in history]
    return {"title": chat_title(history), "messages": messages}


def unpack_chat(chat: object) -> list[Message]:
    """Returns the messages as the page shows them; empty if `chat` is not from `pack_chat`."""
    messages = chat.get("messages") if isinstance(chat, dict) else None
    if not isinstance(messages, list):
        return []
    return [_unpack_message(message) for message in messages if isinstance(message, dict)]


def chat_title(history: list[Message]) -> str:
    """Returns the first words of the first question, or the names of its files."""
    for message in history:
        if message["role"] == "user":
            text = " ".join(message_builder.message_text(message).split())
            names = [path.name for path in message_builder.message_files(message)]
            title = text or ", ".join(names) or _("Chat")
            return title if len(title) <= TITLE_LENGTH else f"{title[: TITLE_LENGTH - 1].rstrip()}…"
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
        text, files = _available_files(text, message.get("files"))
    return _shown_message(str(message.get("role")), text, files, message)


def _available_files(text: str, files: object) -> tuple[str, list[str]]:
    """Returns the files that are still on the server, and the text with the names of the missing files."""
    available, missing = [], []
    for path in files if isinstance(files, list) else []:
        try:
            available.append(str(uploads.resolve_upload(str(path))))
        except UserError:
            missing.append(Path(str(path)).name)
    if missing:
        note = _("No longer on the server: {names}", names=", ".join(missing))
        text = f"{text}\n\n({note})".strip()
    return text, available


def _shown_message(role: str, text: str, files: list[str], message: Message) -> Message:
    if role == "user":
        return message_builder.user_message(text, files)
    if role == "thinking":
        title = str(message.get("title") or _("Thinking"))
        return message_builder.reasoning_message(text, 0) | {"metadata": {"title": title, "status": "done"}}
    return message_builder.assistant_message(text, str(message.get("note", "")))


def unreadable_chat_error() -> UserError:
    return UserError(_("This file is not a saved chat."), _("Choose a JSON file that was saved from this page."))


def export_markdown(history: list[Message], name: str) -> str:
    """Returns the chat as Markdown: questions, unchanged answers, notes in italics, and the names of files."""
    parts = [f"# {name}"]
    for message in history:
        if message["role"] == "user":
            parts.append("## Question")
            parts += [f"*Attached: {path.name}*" for path in message_builder.message_files(message)]
            if text := message_builder.message_text(message):
                parts.append(text)
        elif message_builder.is_reasoning(message):
            text = message_builder.answer_text(message)
            parts.append(f"<details><summary>{message['metadata']['title']}</summary>\n\n{text}\n\n</details>")
        else:
            parts += ["## Answer", message_builder.answer_text(message)]
            if note := " ".join(message_builder.note_text(message).replace("\\", "").split()):
                parts.append(f"*{note.replace('**', '')}*")
    return "\n\n".join(part for part in parts if part) + "\n"


def export_json(history: list[Message], name: str) -> str:
    """Returns the complete chat as JSON, including the data of its files."""
    return json.dumps(
        {
            "kind": EXPORT_KIND,
            "version": 1,
            "title": name,
            "messages": [
                _pack_message(message, message_builder.answer_text(message), _export_file) for message in history
            ],
        },
        ensure_ascii=False,
        indent=1,
    )


def parse_export(text: str) -> list[Message]:
    """Parses the output of `export_json` and stores its files as uploads. Raises UserError."""
    try:
        document = json.loads(text)
        if document["kind"] != EXPORT_KIND:
            raise unreadable_chat_error()
        return [import_message(message) for message in document["messages"]]
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        raise unreadable_chat_error() from None


def read_export(path: Path) -> list[Message]:
    """Reads a chat saved as JSON. Raises UserError."""
    if path.stat().st_size > MAX_IMPORT_BYTES:
        raise UserError(
            _("{name} is larger than {limit} MB.", name=path.name, limit=MAX_IMPORT_BYTES // 1024 // 1024),
            _("Choose a smaller file."),
        )
    try:
        return parse_export(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise unreadable_chat_error() from None


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
    attachments.mime_type(Path(name))  # raises UserError for other file types
    return str(uploads.store_upload(name, base64.b64decode(file["data"], validate=True)))


CODE_LANGUAGES = ("curl", "Python", "JavaScript")
DATA_SCHEME = "data:"
EXAMPLE_KEY = "any"


def render_code(request: ChatRequest, names: list[str], base_url: str, language: str) -> str:
    """Returns code that sends `request`. `names`: the files in the order of the messages. `base_url` ends in /v1."""
    match language:
        case "Python":
            return _python(request_body(request), names, base_url)
        case "JavaScript":
            return _javascript(request_body(request), names, base_url)
    return _curl(request_body(request), names, base_url)


def request_json(request: ChatRequest) -> str:
    """Returns the request body as JSON, including the data of its files."""
    return json.dumps(request_body(request), ensure_ascii=False)


class _FilePlaceholders:
    """Replaces the file data in a request body with placeholders."""

    def __init__(self, names: list[str]) -> None:
        self._names = iter(names)
        self.files: list[tuple[str, str]] = []
        """(file name, MIME type) of each placeholder."""

    def dug(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self.dug(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self.dug(item) for item in value]
        if isinstance(value, str) and value.startswith(DATA_SCHEME) and ";base64," in value:
            kind = value.removeprefix(DATA_SCHEME).partition(";")[0]
            self.files.append((next(self._names, "file"), kind))
            return f"\0{len(self.files) - 1}\0"
        return value

    def filled(self, text: str, with_: Any) -> str:
        """Replaces the quoted placeholders in `text` (JSON or a Python literal) with `with_(name, kind)`."""
        for number, (name, kind) in enumerate(self.files):
            for hole in (f'"\\u0000{number}\\u0000"', f"'\\x00{number}\\x00'"):
                text = text.replace(hole, with_(name, kind))
        return text


def _curl(whole: dict[str, Any], names: list[str], base_url: str) -> str:
    hole = _FilePlaceholders(names)
    dug = json.dumps(hole.dug(whole), ensure_ascii=False, indent=2)
    # Closes and reopens the quotes, so that the shell inserts the file. `-d @-`, because arguments have a size limit.
    escaped = dug.replace("'", "'\\''")
    filled = hole.filled(escaped, lambda name, kind: f'"data:{kind};base64,\'"$(base64 -w0 {shlex.quote(name)})"\'"')
    return (
        f"printf '%s' '{filled}' |\n"
        f"  curl --no-buffer {base_url}/chat/completions -H 'Content-Type: application/json' \\\n"
        f"    -H 'Authorization: Bearer {EXAMPLE_KEY}' -d @-\n"
    )


def _python(whole: dict[str, Any], names: list[str], base_url: str) -> str:
    hole = _FilePlaceholders(names)
    dug = hole.dug(whole)
    messages = hole.filled(_literal(dug["messages"], 4), lambda name, kind: f"data_url({name!r}, {kind!r})")
    known = ("model", "messages", "stream", "temperature", "top_p", "max_tokens", "seed", "response_format")
    more = {name: value for name, value in dug.items() if name not in (*known, "stream_options")}
    lines = [f"    {name}={_literal(dug[name], 4)}," for name in known if name in dug and name != "messages"]
    if more:  # fields of vLLM that the client does not know
        lines.append(f"    extra_body={_literal(more, 4)},")
    reads = (
        "def data_url(file, kind):\n"
        '    return f"data:{kind};base64," + base64.b64encode(Path(file).read_bytes()).decode()\n\n\n'
        if hole.files
        else ""
    )
    imports = "import base64\nfrom pathlib import Path\n\n" if hole.files else ""
    return (
        f"{imports}from openai import OpenAI\n\n"
        f'client = OpenAI(base_url="{base_url}", api_key="{EXAMPLE_KEY}")\n\n\n{reads}'
        "stream = client.chat.completions.create(\n" + "\n".join(lines) + f"\n    messages={messages},\n)\n"
        "for chunk in stream:\n    if chunk.choices:\n"
        '        print(chunk.choices[0].delta.content or "", end="", flush=True)\n'
    )


def _javascript(whole: dict[str, Any], names: list[str], base_url: str) -> str:
    hole = _FilePlaceholders(names)
    dug = json.dumps(hole.dug(whole), ensure_ascii=False, indent=2)
    filled = hole.filled(dug, lambda name, kind: f"dataUrl({json.dumps(name)}, {json.dumps(kind)})")
    reads = (
        'import { readFileSync } from "node:fs";\n\n'
        'const dataUrl = (file, kind) => `data:${kind};base64,${readFileSync(file).toString("base64")}`;\n\n'
        if hole.files
        else ""
    )
    return (
        f"{reads}const response = await fetch({json.dumps(base_url + '/chat/completions')}, {{\n"
        '  method: "POST",\n'
        f'  headers: {{ "Content-Type": "application/json", Authorization: "Bearer {EXAMPLE_KEY}" }},\n'
        f"  body: JSON.stringify({filled}),\n}});\n"
        "for await (const bytes of response.body) process.stdout.write(bytes);\n"
    )


def _literal(value: Any, indent: int) -> str:
    """Returns `value` as a Python literal, with one message per line."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        inner = " " * (indent + 4)
        return "[\n" + "".join(f"{inner}{item!r},\n" for item in value) + " " * indent + "]"
    return repr(value)
