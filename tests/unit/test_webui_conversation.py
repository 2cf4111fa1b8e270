"""The chat on the page becomes OpenAI messages."""

import json
from pathlib import Path
from typing import Any

import pytest

from webui import conversation
from webui.conversation import answered, assistant_message, check_size, sent, to_openai, user_message, wire_bytes
from webui.failure import Failure


@pytest.fixture
def picture(tmp_path: Path) -> str:
    path = tmp_path / "cat.png"
    path.write_bytes(b"png")
    return str(path)


@pytest.fixture
def video(tmp_path: Path) -> str:
    path = tmp_path / "walk.mp4"
    path.write_bytes(b"mp4" * 100)
    return str(path)


def as_gradio_hands_it_back(message: dict[str, Any]) -> dict[str, Any]:
    content = [
        {"type": "file", "file": {"path": item["path"], "url": "/x"}, "alt_text": item["alt_text"]}
        if "path" in item
        else item
        for item in message["content"]
    ]
    return {**message, "content": content, "metadata": None, "options": None}


def test_pictures_and_videos_come_before_the_text(picture: str, video: str) -> None:
    [message] = to_openai([user_message("What is this?", [picture, video])], system="")
    assert [part["type"] for part in message["content"]] == ["image_url", "video_url", "text"]
    assert message["content"][0]["image_url"]["url"] == "data:image/png;base64,cG5n"
    assert message["content"][1]["video_url"]["url"].startswith("data:video/mp4;base64,")
    assert message["content"][2]["text"] == "What is this?"


def test_text_alone_is_a_plain_string() -> None:
    assert to_openai([user_message("hi", [])], system="") == [{"role": "user", "content": "hi"}]


def test_every_turn_is_resent_with_its_pictures_and_without_the_page_s_notes(picture: str) -> None:
    history = [
        as_gradio_hands_it_back(user_message("first", [picture])),
        as_gradio_hands_it_back(assistant_message("A cat.", "cpu-0 · 3 in / 4 out")),
        user_message("second", []),
    ]
    messages = to_openai(history, system=" Be brief. ")
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert messages[0]["content"] == "Be brief."
    assert messages[1]["content"][0]["image_url"]["url"].endswith("cG5n")
    assert messages[2]["content"] == "A cat."
    assert messages[3]["content"] == "second"


def test_a_question_without_any_answer_is_not_resent() -> None:
    history = [
        user_message("first", []),
        assistant_message("Yes.", "line"),
        user_message("refused", []),
        assistant_message("", "**busy** Press retry."),
    ]
    assert answered(history) == history[:2]


def test_a_cut_answer_stays_in_the_conversation() -> None:
    history = [user_message("first", []), assistant_message("Half an ans", "**cut**")]
    assert answered(history) == history


def test_a_question_can_be_put_back_into_the_box(picture: str) -> None:
    message = user_message("What is this?", [picture])
    expected = {"text": "What is this?", "files": [picture]}
    assert sent(message) == expected
    assert sent(as_gradio_hands_it_back(message)) == expected


def test_the_size_is_never_told_too_small(picture: str, video: str) -> None:
    history = [
        user_message("Größe? \n" * 50, [picture, video]),
        assistant_message("日本 " * 50, "note"),
        user_message("more", [picture]),
    ]
    body = json.dumps({"messages": to_openai(history, "system")}, ensure_ascii=False).encode()
    assert len(body) <= wire_bytes(history, "system") <= len(body) + conversation.TEXT_OVERHEAD + 1000


def test_too_large_a_chat_is_told_with_both_sizes(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    path.write_bytes(b"\0" * 2_000_000)
    history = [user_message("Watch", [str(path)])]
    check_size(history, "", max_bytes=3 * 1024 * 1024)
    with pytest.raises(Failure, match=r"2\.5 MB to send; the limit is 2 MB\. Send fewer or smaller files"):
        check_size(history, "", max_bytes=2 * 1024 * 1024)
