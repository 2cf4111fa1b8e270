"""The sample prompts with their pictures (drawn by `python -m webui.samples.draw`)."""

from __future__ import annotations

from pathlib import Path

from gradio.components.chatbot import ExampleMessage

HERE = Path(__file__).parent

SAMPLES = (
    ("Read a receipt", "What was bought, and what is the total? Answer as a table.", ("receipt.png",)),
    ("Explain a chart", "What does this chart show? Say it in two sentences.", ("chart.png",)),
    ("Compare two pictures", "What differs between these two pictures?", ("before.png", "after.png")),
    ("Just chat", "In three short points: what can you do with a picture or a video?", ()),
)


def for_chat() -> list[ExampleMessage]:
    """The samples as `gr.Chatbot(examples=...)` wants them."""
    return [
        {"display_text": title, "text": text, "files": [str(HERE / name) for name in files]}
        for title, text, files in SAMPLES
    ]
