"""The sample prompts with their files (drawn by `python -m webui.samples.draw`)."""

from __future__ import annotations

from pathlib import Path

from gradio.components.chatbot import ExampleMessage

from webui.i18n.language import later, say

HERE = Path(__file__).parent.resolve()

SAMPLES = (
    (later("Read a receipt"), later("What was bought, and what is the total? Answer as a table."), ("receipt.png",)),
    (later("Explain a chart"), later("What does this chart show? Say it in two sentences."), ("chart.png",)),
    (later("Compare two pictures"), later("What differs between these two pictures?"), ("before.png", "after.png")),
    (later("Watch a video"), later("What happens in this video, and when?"), ("ball.webm",)),
    (later("Read a letter (PDF)"), later("Who writes to whom, and what is wanted until when?"), ("letter.pdf",)),
    (later("Just chat"), later("In three short points: what can you do with a picture or a video?"), ()),
)
SCREENS = ("screen-1.png", "screen-2.png")


def for_chat() -> list[ExampleMessage]:
    """The samples as `gr.Chatbot(examples=...)` wants them."""
    return [
        {"display_text": say(title), "text": say(text), "files": [str(HERE / name) for name in files]}
        for title, text, files in SAMPLES
    ]


def documents() -> list[Path]:
    """A receipt, a chart and a letter of two pages."""
    return [HERE / name for name in ("receipt.png", "chart.png", "letter.pdf")]


def screens() -> list[Path]:
    """Screenshots of a program, one after the other."""
    return [HERE / name for name in SCREENS]
