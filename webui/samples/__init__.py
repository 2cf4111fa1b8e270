"""Sample prompts and their files, which are in this folder."""

from pathlib import Path

from gradio.components.chatbot import ExampleMessage

from webui.i18n import N_, _

HERE = Path(__file__).parent.resolve()

SAMPLES = (
    (N_("Read a receipt"), N_("What was bought, and what is the total? Answer as a table."), ("receipt.png",)),
    (N_("Explain a chart"), N_("What does this chart show? Answer in two sentences."), ("chart.png",)),
    (N_("Compare two images"), N_("What differs between these two images?"), ("before.png", "after.png")),
    (N_("Watch a video"), N_("What happens in this video, and when?"), ("ball.webm",)),
    (N_("Read a letter (PDF)"), N_("Who writes to whom, and what is requested by which date?"), ("letter.pdf",)),
    (N_("Just chat"), N_("In three short points: what can you do with an image or a video?"), ()),
)
SCREENS = ("screen-1.png", "screen-2.png")


def for_chat() -> list[ExampleMessage]:
    """Returns the samples in the form of `gr.Chatbot(examples=...)`."""
    return [
        {"display_text": _(title), "text": _(text), "files": [str(HERE / name) for name in files]}
        for title, text, files in SAMPLES
    ]


def documents() -> list[Path]:
    """Returns a receipt, a chart and a letter of two pages."""
    return [HERE / name for name in ("receipt.png", "chart.png", "letter.pdf")]


def screens() -> list[Path]:
    """Returns the screenshots of a program, in order."""
    return [HERE / name for name in SCREENS]
