"""The chat on the page becomes OpenAI messages."""

import json
from pathlib import Path
from typing import Any

import pytest

from webui.chat import message_builder
from webui.chat.chat_handlers import LONGEST_REDRAW_S, SHORTEST_REDRAW_S, next_redraw_pause
from webui.chat.message_builder import (
    assistant_message,
    box_value,
    check_request_size,
    drop_unanswered,
    openai_messages,
    request_bytes,
    user_message,
)
from webui.chat.streamed_answer import switch_mark
from webui.user_error import UserError

pytestmark = pytest.mark.usefixtures("uploads_folder")


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
    [message] = openai_messages([user_message("What is this?", [picture, video])], system="")
    assert [part["type"] for part in message["content"]] == ["image_url", "video_url", "text"]
    assert message["content"][0]["image_url"]["url"] == "data:image/png;base64,cG5n"
    assert message["content"][1]["video_url"]["url"].startswith("data:video/mp4;base64,")
    assert message["content"][2]["text"] == "What is this?"


def test_every_turn_is_resent_with_its_pictures_and_without_what_the_page_put_there(picture: str) -> None:
    """Thinking, the mark where the engine changed, and the note under the answer are the page's."""
    history = [
        as_gradio_hands_it_back(user_message("first", [picture])),
        as_gradio_hands_it_back(message_builder.reasoning_message("hm", 2.0))
        | {"metadata": {"title": "Thought for 2 s"}},
        as_gradio_hands_it_back(assistant_message(f"A{switch_mark('gpu-0')}cat.", "cpu-0 · 3 in / 4 out")),
        user_message("second", []),
    ]
    messages = openai_messages(history, system=" Be brief. ")
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert messages[0]["content"] == "Be brief."
    assert messages[1]["content"][0]["image_url"]["url"].endswith("cG5n")
    assert messages[2]["content"] == "Acat."
    assert messages[3]["content"] == "second"


FIRST = [user_message("first", []), assistant_message("Yes.", "line")]
THINKS = message_builder.reasoning_message("hm", 2.0)
UNANSWERED = assistant_message("", "**busy** Press retry.")


@pytest.mark.parametrize(
    ("after", "left"),
    [
        ([user_message("refused", []), UNANSWERED], []),
        ([user_message("refused", []), THINKS, UNANSWERED], []),
        ([user_message("cut", []), assistant_message("Half an ans", "**cut**")], None),
        ([user_message("thought about", []), THINKS, assistant_message("A cat.", "")], None),
    ],
    ids=["no answer", "only thinking", "half an answer", "an answer"],
)
def test_a_question_without_any_answer_is_not_resent(
    after: list[dict[str, Any]], left: list[dict[str, Any]] | None
) -> None:
    assert drop_unanswered([*FIRST, *after]) == FIRST + (after if left is None else left)


def test_a_question_can_be_put_back_into_the_box(picture: str) -> None:
    message = user_message("What is this?", [picture])
    expected = {"text": "What is this?", "files": [picture]}
    assert box_value(message) == expected
    assert box_value(as_gradio_hands_it_back(message)) == expected


def test_the_size_is_never_told_too_small(picture: str, video: str) -> None:
    history = [
        user_message("Größe? \n" * 50, [picture, video]),
        assistant_message("日本 " * 50, "note"),
        user_message("more", [picture]),
    ]
    body = json.dumps({"messages": openai_messages(history, "system")}, ensure_ascii=False).encode()
    assert len(body) <= request_bytes(history, "system") <= len(body) + message_builder.TEXT_OVERHEAD + 1000


def test_too_large_a_chat_is_told_with_both_sizes(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    path.write_bytes(b"\0" * 2_000_000)
    history = [user_message("Watch", [str(path)])]
    check_request_size(history, "", max_bytes=3 * 1024 * 1024)
    with pytest.raises(UserError, match=r"2\.5 MB; the limit is 2 MB\. Send fewer or smaller files"):
        check_request_size(history, "", max_bytes=2 * 1024 * 1024)


def test_a_file_that_is_no_upload_is_never_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="was not uploaded"):
        openai_messages([user_message("", ["/etc/hostname.png"])], system="")


def test_an_edited_question_keeps_its_files_and_loses_what_followed(picture: str) -> None:
    history = [
        user_message("a", []),
        assistant_message("b", ""),
        user_message("c", [picture]),
        assistant_message("d", ""),
    ]
    changed = message_builder.replace_question(history, 2, "C")
    assert changed == [history[0], history[1], user_message("C", [picture])]


@pytest.mark.parametrize("index", [2, 3])
def test_deleting_takes_a_question_with_its_answer(index: int) -> None:
    history = [
        user_message("a", []),
        assistant_message("b", ""),
        user_message("c", []),
        assistant_message("d", ""),
        user_message("e", []),
    ]
    assert message_builder.remove_question(history, index) == [history[0], history[1], history[4]]


def test_more_pictures_than_the_model_takes_are_explained(picture: str) -> None:
    history = [user_message("a", [picture, picture]), assistant_message("b", ""), user_message("c", [picture])]
    message_builder.check_media_count(history, "big", 3, 1)
    with pytest.raises(UserError, match="3 images; big accepts at most 2 in one chat"):
        message_builder.check_media_count(history, "big", 2, 1)


def test_a_page_that_keeps_up_draws_twenty_times_a_second() -> None:
    pause = LONGEST_REDRAW_S
    for _ in range(40):
        pause = next_redraw_pause(pause, 0.0)
    assert pause == SHORTEST_REDRAW_S


def test_a_page_that_is_late_draws_less_and_never_stops() -> None:
    pause = SHORTEST_REDRAW_S
    for _ in range(40):
        longer = next_redraw_pause(pause, 0.5)
        assert longer >= pause
        pause = longer
    assert pause == LONGEST_REDRAW_S
