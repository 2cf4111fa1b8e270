"""What people come for, with the settings that suit it. Sampling as Qwen3-VL's own card advises for pictures; 0 where facts are read."""

from __future__ import annotations

from dataclasses import dataclass

from webui.i18n.language import later


@dataclass(frozen=True)
class Preset:
    name: str
    system: str
    temperature: float
    top_p: float
    max_tokens: int
    prompt: str = ""
    """Put into the box where that is empty."""


CHAT = Preset(later("Free chat"), "", 0.7, 0.8, 1024)

PRESETS = (
    CHAT,
    Preset(
        later("Read text (OCR)"),
        later("You transcribe documents exactly. Keep line breaks, write tables as Markdown, add nothing."),
        0.0,
        1.0,
        4096,
        later("Transcribe all text in this picture."),
    ),
    Preset(
        later("Chart or table"),
        later(
            "You read charts and tables. Give the numbers first, as a Markdown table, then two sentences of what they say."
        ),
        0.0,
        1.0,
        2048,
        later("What does this chart show?"),
    ),
    Preset(later("Describe"), "", 0.7, 0.8, 1024, later("Describe this picture in detail.")),
    Preset(
        later("Find and count"),
        later("You locate things in pictures. Say how many there are and where each one is."),
        0.1,
        0.9,
        1024,
        later("How many people are in this picture, and where?"),
    ),
    Preset(
        later("Watch a video"),
        later("You describe videos in the order of time, with the second at which each thing happens."),
        0.7,
        0.8,
        2048,
        later("What happens in this video?"),
    ),
    Preset(
        later("Code from a screenshot"),
        later("Answer with code only."),
        0.2,
        0.9,
        4096,
        later("Write HTML and CSS for this screen."),
    ),
)


def named(name: str) -> Preset:
    return next((preset for preset in PRESETS if preset.name == name), CHAT)
