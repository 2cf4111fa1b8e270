"""Converts the chat on the page to messages for the gateway.

Gradio represents the chat as a list of {"role", "content": [item, ...], "metadata"}, where an item is
{"type": "text", "text"} or {"type": "file", "file": {"path", ...}, "alt_text"}.
An assistant message with a title in its metadata is reasoning, shown folded. In other assistant messages, the first
item is the answer and the second item is the page's note under it.
The browser stores the chat, so a restart of the page loses only the files.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from webui.auth import uploads
from webui.chat.streamed_answer import strip_switch_marks
from webui.files import attachments
from webui.i18n import _, ngettext
from webui.user_error import UserError

Message = dict[str, Any]
SentAs = Callable[[Path], Path]
"""Maps a file of the chat to the file that is sent to the engine."""
TEXT_OVERHEAD = 2048  # bytes of a request without its messages: model, sampling, quotes


def user_message(text: str, files: list[str]) -> Message:
    """Returns a user's message as the chat shows it: the files, then the text."""
    content: list[Message] = [{"path": path, "alt_text": Path(path).name} for path in files]
    if text.strip():
        content.append({"type": "text", "text": text})
    return {"role": "user", "content": content}


def assistant_message(text: str, note: str) -> Message:
    """Returns an answer as the chat shows it. `note` is Markdown and may be empty."""
    return {"role": "assistant", "content": [{"type": "text", "text": text}, {"type": "text", "text": note}]}


def reasoning_message(reasoning: str, seconds: float | None) -> Message:
    """Returns reasoning as the chat shows it: open while it streams, folded once its duration is known."""
    title = _("Thinking") if seconds is None else _("Thought for {seconds} s", seconds=f"{seconds:.0f}")
    return {
        "role": "assistant",
        "content": [{"type": "text", "text": reasoning}],
        "metadata": {"title": title, "status": "pending" if seconds is None else "done"},
    }


def is_reasoning(message: Message) -> bool:
    return bool((message.get("metadata") or {}).get("title"))


def box_value(message: Message) -> dict[str, Any]:
    """Returns a user's message as a value of the question box."""
    return {"text": "\n".join(_texts(message)), "files": [str(path) for path in message_files(message)]}


def drop_unanswered(history: list[Message]) -> list[Message]:
    """Returns `history` without the questions that have no answer (their text is back in the box)."""
    answered: list[Message] = []
    for message in history:
        if message["role"] == "assistant" and not is_reasoning(message) and not answer_text(message):
            while answered and answered[-1]["role"] == "assistant" and is_reasoning(answered[-1]):
                answered.pop()
            if answered and answered[-1]["role"] == "user":
                answered.pop()
        else:
            answered.append(message)
    return answered


def replace_question(history: list[Message], index: int, text: str) -> list[Message]:
    """Returns the chat up to the question at `index`, with a new text. Later messages are dropped."""
    files = [str(path) for path in message_files(history[index])]
    return [*drop_unanswered(history[:index]), user_message(text, files)]


def remove_question(history: list[Message], index: int) -> list[Message]:
    """Returns the chat without the question at or before `index` and its answer."""
    begin = index
    while begin > 0 and history[begin]["role"] != "user":
        begin -= 1
    end = begin + 1
    while end < len(history) and history[end]["role"] != "user":
        end += 1
    return [*history[:begin], *history[end:]]


def raw_text(message: Message) -> str:
    """Returns an answer as the page shows it, with the marks where the engine changed."""
    first = message["content"][0] if message["content"] else {}
    return str(first.get("text", ""))


def answer_text(message: Message) -> str:
    return strip_switch_marks(raw_text(message))


def note_text(message: Message) -> str:
    return str(message["content"][1].get("text", "")) if len(message["content"]) > 1 else ""


def same_path(path: Path) -> Path:
    return path


def request_bytes(history: list[Message], system: str, sent_as: SentAs = same_path) -> int:
    """Estimates the size of the request body in bytes. The estimate is slightly too high rather than too low."""
    total = TEXT_OVERHEAD + _text_bytes(system)
    for message in history:
        if message["role"] == "assistant":
            total += 0 if is_reasoning(message) else _text_bytes(answer_text(message))
        else:
            total += sum(_text_bytes(text) for text in _texts(message))
            total += sum(attachments.wire_bytes(sent_as(path)) + 64 for path in message_files(message))
    return total


def check_request_size(history: list[Message], system: str, max_bytes: int, sent_as: SentAs = same_path) -> None:
    """Raises UserError if the request body would exceed `max_bytes`, the limit of the gateway."""
    size = request_bytes(history, system, sent_as)
    if size > max_bytes:
        mb = 1024 * 1024
        raise UserError(
            _(
                "This chat with its images and videos is {size} MB; the limit is {limit} MB.",
                size=f"{size / mb:.1f}",
                limit=max_bytes // mb,
            ),
            _("Send fewer or smaller files, or start a new chat."),
        )


def check_media_count(history: list[Message], model: str, images: int, videos: int) -> None:
    """Raises UserError if all turns together have more images or videos than `model` accepts in one request."""
    kinds = [attachments.mime_type(path).partition("/")[0] for message in history for path in message_files(message)]
    for kind, limit in (("image", images), ("video", videos)):
        if (count := kinds.count(kind)) > limit:
            if kind == "image":
                files = ngettext("{count} image", "{count} images", count)
            else:
                files = ngettext("{count} video", "{count} videos", count)
            takes = _("accepts at most {limit} in one chat", limit=limit) if limit else _("accepts none")
            raise UserError(
                _("This chat has {files}; {model} {takes}.", files=files, model=model, takes=takes),
                _("Send fewer files, or start a new chat."),
            )


def openai_messages(history: list[Message], system: str, sent_as: SentAs = same_path) -> list[Message]:
    """Returns the chat as OpenAI messages, with images and videos as `data:` URLs. Reads the files."""
    messages: list[Message] = [{"role": "system", "content": system.strip()}] if system.strip() else []
    for message in history:
        if message["role"] == "assistant":
            if not is_reasoning(message):
                messages.append({"role": "assistant", "content": answer_text(message)})
            continue
        files = [attachments.media_part(sent_as(uploads.resolve_upload(path))) for path in message_files(message)]
        text = "\n".join(_texts(message))
        if files:
            messages.append({"role": "user", "content": [*files, *([{"type": "text", "text": text}] if text else [])]})
        else:
            messages.append({"role": "user", "content": text})
    return messages


def message_files(message: Message) -> Iterator[Path]:
    for item in message["content"]:
        if "path" in item:  # as created by user_message()
            yield Path(item["path"])
        elif item.get("type") == "file":  # as returned by Gradio
            yield Path(item["file"]["path"])


def message_text(message: Message) -> str:
    return "\n".join(_texts(message))


def _texts(message: Message) -> Iterator[str]:
    return (item["text"] for item in message["content"] if item.get("type") == "text")


def _text_bytes(text: str) -> int:
    return len(json.dumps(text, ensure_ascii=False).encode()) + 64
