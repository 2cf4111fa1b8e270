"""Chats that are kept, saved, brought back, and shown as code."""

import ast
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from webui.chat import chat_storage
from webui.chat.completion_stream import ChatRequest, request_body
from webui.chat.message_builder import assistant_message, reasoning_message, user_message
from webui.user_error import UserError

pytestmark = pytest.mark.usefixtures("uploads_folder")


PNG = b"\x89PNG not really"


@pytest.fixture
def history(uploads_folder: Path) -> list[dict[str, Any]]:
    (uploads_folder / "cat.png").write_bytes(PNG)
    return [
        user_message("What is\nthis?", [str(uploads_folder / "cat.png")]),
        reasoning_message("It has ears.", 3),
        assistant_message("A cat.", "gpu\\-0 · big"),
    ]


def test_a_kept_chat_is_shown_again_as_it_was(history: list[dict[str, Any]]) -> None:
    kept = json.loads(json.dumps(chat_storage.pack_chat(history)))
    assert kept["title"] == "What is this?"
    assert chat_storage.unpack_chat(kept) == history


def test_a_kept_chat_says_which_files_are_gone(history: list[dict[str, Any]], uploads_folder: Path) -> None:
    kept = chat_storage.pack_chat(history)
    (uploads_folder / "cat.png").unlink()
    [question, *_] = chat_storage.unpack_chat(kept)
    assert question["content"] == [{"type": "text", "text": "What is\nthis?\n\n(No longer on the server: cat.png)"}]


@pytest.mark.parametrize("made_up", [None, [], "x", {"messages": 3}, {"messages": ["x", 4]}])
def test_what_is_no_kept_chat_shows_nothing(made_up: object) -> None:
    assert chat_storage.unpack_chat(made_up) == []


def test_a_kept_chat_cannot_name_a_file_of_the_server() -> None:
    [question] = chat_storage.unpack_chat({"messages": [{"role": "user", "text": "x", "files": ["/etc/passwd"]}]})
    assert all(item["type"] == "text" for item in question["content"])


def test_a_saved_chat_comes_back_with_its_files(history: list[dict[str, Any]], uploads_folder: Path) -> None:
    text = chat_storage.export_json(history, "Cats")
    (uploads_folder / "cat.png").unlink()
    question, reasoning, answer = chat_storage.parse_export(text)
    [file, words] = question["content"]
    assert Path(file["path"]).read_bytes() == PNG
    assert words["text"] == "What is\nthis?"
    assert (reasoning, answer) == (history[1], history[2])


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"kind": "manyeyes-chat"}', '{"kind": "manyeyes-chat", "messages": [{"role": "x", "text": ""}]}'],
)
def test_another_file_is_refused_in_words(text: str) -> None:
    with pytest.raises(UserError, match="not a saved chat"):
        chat_storage.parse_export(text)


def test_a_saved_chat_brings_no_program_among_the_uploads() -> None:
    bad = {"role": "user", "text": "", "files": [{"name": "../x.html", "data": "PGI+"}]}
    with pytest.raises(UserError, match="neither an image nor a video"):
        chat_storage.parse_export(json.dumps({"kind": "manyeyes-chat", "messages": [bad]}))


def test_markdown_has_questions_answers_and_who_gave_them(history: list[dict[str, Any]]) -> None:
    text = chat_storage.export_markdown(history, "Cats")
    for part in ("# Cats", "*Attached: cat.png*", "What is\nthis?", "Thought for 3 s", "A cat.", "*gpu-0 · big*"):
        assert part in text


def question(words: str = 'It\'s "this" $HOME `x` \\ 猫') -> ChatRequest:
    url = "data:image/png;base64,AAAA"
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": words}]
    return ChatRequest("big", [{"role": "user", "content": content}], "p", 0.7, 0.8, 64, seed=7)


def test_the_curl_code_sends_the_very_request(tmp_path: Path) -> None:
    (tmp_path / "my cat.png").write_bytes(b"\0\0\0")
    code = chat_storage.render_code(question(), ["my cat.png"], "http://host/v1", "curl")
    posted = subprocess.run(
        ["bash", "-c", f"curl() {{ cat; }}\n{code}"], cwd=tmp_path, capture_output=True, check=True, text=True
    )
    assert json.loads(posted.stdout) == request_body(question())


def test_the_python_code_sends_the_very_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cat.png").write_bytes(b"\0\0\0")
    monkeypatch.chdir(tmp_path)
    code = chat_storage.render_code(question(), ["cat.png"], "http://host/v1", "Python")
    ast.parse(code)
    caught: dict[str, Any] = {}

    class Client:
        def __init__(self, **_: Any) -> None:
            self.chat = self.completions = self

        def create(self, **fields: Any) -> list[Any]:
            caught.update(fields)
            return []

    exec(code.replace("from openai import OpenAI", ""), {"OpenAI": Client})
    expected = request_body(question())
    expected.pop("stream_options")
    assert caught == expected


def test_the_javascript_code_names_the_file_and_the_address() -> None:
    code = chat_storage.render_code(question("hi"), ["cat.png"], "http://host/v1", "JavaScript")
    assert 'dataUrl("cat.png", "image/png")' in code
    assert '"http://host/v1/chat/completions"' in code
    assert "AAAA" not in code
