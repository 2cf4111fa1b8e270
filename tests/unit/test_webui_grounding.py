"""Boxes and points in answers, and the picture with them."""

from pathlib import Path

import pytest
from PIL import Image

from webui.chat import screenshot_agent
from webui.chat.screenshot_agent import AgentStep, GroundingMark
from webui.chat.streamed_answer import StreamedAnswer

BOX = GroundingMark((100, 200, 300, 400), "cat")


@pytest.mark.parametrize(
    "text",
    [
        '[{"bbox_2d": [100, 200, 300, 400], "label": "cat"}]',
        '```json\n[{"bbox_2d": [100, 200, 300, 400], "label": "cat"}]\n```',
        'Here it is: {"bbox_2d": [100, 200, 300, 400], "label": "cat"} as wanted.',
        '[{"bbox_2d": [100, 200, 300, 400], "label": "cat"}, {"bbox_2d": [1, 2',
        '{"objects": [{"label": "cat", "bbox_2d": [100, 200, 300, 400]}]}',
    ],
    ids=["list", "fenced", "between words", "cut", "nested"],
)
def test_a_box_is_found_however_the_answer_wraps_it(text: str) -> None:
    assert screenshot_agent.find_marks(text) == [BOX]


@pytest.mark.parametrize("text", ["", "no box here", "[1, 2, 3]", '{"bbox_2d": [1, 2]}', '{"bbox_2d": ["a", 1, 2, 3]}'])
def test_what_is_no_box_is_none(text: str) -> None:
    assert screenshot_agent.find_marks(text) == []


def test_coordinates_are_thousandths_and_stay_on_the_picture() -> None:
    [mark] = screenshot_agent.find_marks('{"point_2d": [500, 1700], "label": "x"}')
    assert mark.pixels(960, 600) == (480, 600)


def test_an_action_is_found_with_its_place() -> None:
    text = '{"action": "type", "coordinate": [479, 283], "text": "24"}'
    assert screenshot_agent.find_action(text) == {"action": "type", "coordinate": [479, 283], "text": "24"}
    assert screenshot_agent.find_marks(text) == [GroundingMark((479, 283), "24")]
    step = AgentStep(Path("screen.png"), StreamedAnswer(0.0, text=text, finish_reason="stop"))
    assert screenshot_agent.describe_step(step) == "type '24' at 479, 283"


def test_what_was_done_before_is_told_at_the_next_step() -> None:
    step = AgentStep(Path("a.png"), StreamedAnswer(0.0, text='{"action": "click", "coordinate": [1, 2]}'))
    assert 'Step 1 was {"action": "click"' in screenshot_agent.agent_prompt(
        screenshot_agent.NEXT_ACTION, "Order coffee", [step]
    )


def test_boxes_and_points_are_drawn_where_they_are() -> None:
    white = Image.new("RGB", (1000, 500), "white")
    picture = screenshot_agent.draw_marks(white, [BOX, GroundingMark((800, 800))])
    assert picture.getpixel((100, 150)) != (255, 255, 255)  # the box's left side
    assert picture.getpixel((200, 150)) == (255, 255, 255)  # inside it
    assert picture.getpixel((800, 400)) != (255, 255, 255)  # the point
    assert white.getpixel((800, 400)) == (255, 255, 255)


def test_an_answer_without_marks_says_what_to_do() -> None:
    step = AgentStep(Path("a.png"), StreamedAnswer(0.0, text="A window.", finish_reason="stop"))
    assert "rephrase the instruction" in screenshot_agent.describe_step(step)
