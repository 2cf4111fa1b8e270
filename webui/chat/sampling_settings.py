"""One model's knobs as a visitor sets them, and what is asked with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from webui.chat.completion_stream import ChatRequest
from webui.files.attachments import AttachmentLimits
from webui.files.vision_tokens import FRAMES_PER_S
from webui.i18n.translations import N_, _
from webui.user_error import UserError


@dataclass(frozen=True)
class SamplingSettings:
    """In the order in which a tab hands them over."""

    model: str | None
    system: str = ""
    temperature: float = 0.7
    top_p: float = 0.8
    max_tokens: float = 1024
    seed: str | int | None = None
    """Empty: random."""
    longest: float = 1280
    frames_per_s: float = FRAMES_PER_S
    most_frames: float = 16

    def __post_init__(self) -> None:
        if self.system is None:  # a box in a tab that was never opened
            object.__setattr__(self, "system", "")

    @property
    def limits(self) -> AttachmentLimits:
        return AttachmentLimits(int(self.longest), float(self.frames_per_s), int(self.most_frames))

    def build_request(
        self, messages: list[dict[str, Any]], page: str, key: str = "", response_format: dict[str, Any] | None = None
    ) -> ChatRequest:
        """Raises UserError where no model is chosen."""
        if not self.model:
            raise UserError(_("No model is chosen."), _("Choose one in the settings, then press retry."))
        tokens = int(self.max_tokens)
        seed = self._seed()
        return ChatRequest(self.model, messages, page, self.temperature, self.top_p, tokens, key, seed, response_format)

    def _seed(self) -> int | None:
        found = str(self.seed if self.seed is not None else "").strip()
        if not found:
            return None
        if not found.removeprefix("-").isdecimal():
            raise UserError(
                _("The seed is a whole number, found {found}.", found=repr(found[:20])),
                _("Correct or empty it, then press retry."),
            )
        return int(found)


@dataclass(frozen=True)
class Preset:
    name: str
    system: str
    temperature: float
    top_p: float
    max_tokens: int
    prompt: str = ""
    """Put into the box where that is empty."""


DEFAULT_PRESET = Preset(N_("Free chat"), "", 0.7, 0.8, 1024)

PRESETS = (
    DEFAULT_PRESET,
    Preset(
        N_("Read text (OCR)"),
        N_("You transcribe documents exactly. Keep line breaks, write tables as Markdown, add nothing."),
        0.0,
        1.0,
        4096,
        N_("Transcribe all text in this picture."),
    ),
    Preset(
        N_("Chart or table"),
        N_(
            "You read charts and tables. Give the numbers first, as a Markdown table, then two sentences of what they say."
        ),
        0.0,
        1.0,
        2048,
        N_("What does this chart show?"),
    ),
    Preset(N_("Describe"), "", 0.7, 0.8, 1024, N_("Describe this picture in detail.")),
    Preset(
        N_("Find and count"),
        N_("You locate things in pictures. Say how many there are and where each one is."),
        0.1,
        0.9,
        1024,
        N_("How many people are in this picture, and where?"),
    ),
    Preset(
        N_("Watch a video"),
        N_("You describe videos in the order of time, with the second at which each thing happens."),
        0.7,
        0.8,
        2048,
        N_("What happens in this video?"),
    ),
    Preset(
        N_("Code from a screenshot"),
        N_("Answer with code only."),
        0.2,
        0.9,
        4096,
        N_("Write HTML and CSS for this screen."),
    ),
)


def find_preset(name: str) -> Preset:
    return next((preset for preset in PRESETS if preset.name == name), DEFAULT_PRESET)
