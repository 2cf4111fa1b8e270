"""The chat on the page as messages for the gateway.

Gradio hands the chat over as a list of {"role", "content": [item, ...], "metadata"}, where an item is
{"type": "text", "text"} or {"type": "file", "file": {"path", ...}, "alt_text"}.
An assistant's message with a title in its metadata is thinking, shown folded. In any other the first item is the answer;
what follows is the page's own note under it.
The chat lives in the browser, so a restart of the page loses nothing but the files.
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
"""Which file goes to the engine for a file of the chat."""
TEXT_OVERHEAD = 2048  # bytes of a request beside its messages: model, sampling, quotes


def user_message(text: str, files: list[str]) -> Message:
    """What a person sent, as the chat shows it: the files, then the text."""
    content: list[Message] = [{"path": path, "alt_text": Path(path).name} for path in files]
    if text.strip():
        content.append({"type": "text", "text": text})
    return {"role": "user", "content": content}


def assistant_message(text: str, note: str) -> Message:
    """An answer as the chat shows it; `note` is Markdown and may be empty."""
    return {"role": "assistant", "content": [{"type": "text", "text": text}, {"type": "text", "text": note}]}


def reasoning_message(reasoning: str, seconds: float | None) -> Message:
    """Thinking as the chat shows it: open while it comes, folded once its length is known."""
    title = _("Thinking") if seconds is None else _("Thought for {seconds} s", seconds=f"{seconds:.0f}")
    return {
        "role": "assistant",
        "content": [{"type": "text", "text": reasoning}],
        "metadata": {"title": title, "status": "pending" if seconds is None else "done"},
    }


def is_reasoning(message: Message) -> bool:
    return bool((message.get("metadata") or {}).get("title"))


def box_value(message: Message) -> dict[str, Any]:
    """A user's message as the value of the box it was typed in."""
    return {"text": "\n".join(_texts(message)), "files": [str(path) for path in message_files(message)]}


def drop_unanswered(history: list[Message]) -> list[Message]:
    """`history` without the questions that got no answer at all (their text is back in the box)."""
    kept: list[Message] = []
    for message in history:
        if message["role"] == "assistant" and not is_reasoning(message) and not answer_text(message):
            while kept and kept[-1]["role"] == "assistant" and is_reasoning(kept[-1]):
                kept.pop()
            if kept and kept[-1]["role"] == "user":
                kept.pop()
        else:
            kept.append(message)
    return kept


def replace_question(history: list[Message], index: int, text: str) -> list[Message]:
    """The chat up to the question at `index`, with another text: what followed it is gone."""
    files = [str(path) for path in message_files(history[index])]
    return [*drop_unanswered(history[:index]), user_message(text, files)]


def remove_question(history: list[Message], index: int) -> list[Message]:
    """The chat without the question at or before `index` and all that answers it."""
    begin = index
    while begin > 0 and history[begin]["role"] != "user":
        begin -= 1
    end = begin + 1
    while end < len(history) and history[end]["role"] != "user":
        end += 1
    return [*history[:begin], *history[end:]]


def raw_text(message: Message) -> str:
    """An answer as the page shows it, with its marks where the engine changed."""
    first = message["content"][0] if message["content"] else {}
    return str(first.get("text", ""))


def answer_text(message: Message) -> str:
    return strip_switch_marks(raw_text(message))


def note_text(message: Message) -> str:
    return str(message["content"][1].get("text", "")) if len(message["content"]) > 1 else ""


def same_path(path: Path) -> Path:
    return path


def request_bytes(history: list[Message], system: str, sent_as: SentAs = same_path) -> int:
    """About how long the request body gets; a little more rather than a little less."""
    total = TEXT_OVERHEAD + _text_bytes(system)
    for message in history:
        if message["role"] == "assistant":
            total += 0 if is_reasoning(message) else _text_bytes(answer_text(message))
        else:
            total += sum(_text_bytes(text) for text in _texts(message))
            total += sum(attachments.wire_bytes(sent_as(path)) + 64 for path in message_files(message))
    return total


def check_request_size(history: list[Message], system: str, max_bytes: int, sent_as: SentAs = same_path) -> None:
    """Raises UserError when the body would be over the gateway's limit."""
    size = request_bytes(history, system, sent_as)
    if size > max_bytes:
        mb = 1024 * 1024
        raise UserError(
            _(
                "This chat, with its pictures and videos, is {size} MB to send; the limit is {most} MB.",
                size=f"{size / mb:.1f}",
                most=max_bytes // mb,
            ),
            _("Send fewer or smaller files, or begin a new chat."),
        )


def check_media_count(history: list[Message], model: str, pictures: int, videos: int) -> None:
    """Raises UserError when there is more in the chat than `model` takes in one request, all turns together."""
    kinds = [attachments.mime_type(path).partition("/")[0] for message in history for path in message_files(message)]
    for kind, most in (("image", pictures), ("video", videos)):
        if (found := kinds.count(kind)) > most:
            if kind == "image":
                files = ngettext("{count} picture", "{count} pictures", found)
            else:
                files = ngettext("{count} video", "{count} videos", found)
            takes = _("takes {most} in one chat", most=most) if most else _("takes none")
            raise UserError(
                _("This chat has {files}; {model} {takes}.", files=files, model=model, takes=takes),
                _("Send fewer of them, or begin a new chat."),
            )


def openai_messages(history: list[Message], system: str, sent_as: SentAs = same_path) -> list[Message]:
    """OpenAI's messages: every turn with its pictures and videos as `data:` URLs (reads the files)."""
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
        if "path" in item:  # as user_message() makes it
            yield Path(item["path"])
        elif item.get("type") == "file":  # as Gradio hands it back
            yield Path(item["file"]["path"])


def message_text(message: Message) -> str:
    return "\n".join(_texts(message))


def _texts(message: Message) -> Iterator[str]:
    return (item["text"] for item in message["content"] if item.get("type") == "text")


def _text_bytes(text: str) -> int:
    return len(json.dumps(text, ensure_ascii=False).encode()) + 64
