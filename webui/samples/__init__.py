"""The sample prompts with their files (drawn by `python -m webui.samples.draw`)."""

from __future__ import annotations

from pathlib import Path

from gradio.components.chatbot import ExampleMessage

HERE = Path(__file__).parent.resolve()

SAMPLES = (
    ("Read a receipt", "What was bought, and what is the total? Answer as a table.", ("receipt.png",)),
    ("Explain a chart", "What does this chart show? Say it in two sentences.", ("chart.png",)),
    ("Compare two pictures", "What differs between these two pictures?", ("before.png", "after.png")),
    ("Watch a video", "What happens in this video, and when?", ("ball.webm",)),
    ("Read a letter (PDF)", "Who writes to whom, and what is wanted until when?", ("letter.pdf",)),
    ("Just chat", "In three short points: what can you do with a picture or a video?", ()),
)
SCREENS = ("screen-1.png", "screen-2.png")


def for_chat() -> list[ExampleMessage]:
    """The samples as `gr.Chatbot(examples=...)` wants them."""
    return [
        {"display_text": title, "text": text, "files": [str(HERE / name) for name in files]}
        for title, text, files in SAMPLES
    ]


def documents() -> list[Path]:
    """A receipt, a chart and a letter of two pages."""
    return [HERE / name for name in ("receipt.png", "chart.png", "letter.pdf")]


def screens() -> list[Path]:
    """Screenshots of a program, one after the other."""
    return [HERE / name for name in SCREENS]
