"""One model's knobs as a visitor sets them, and what is asked with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from webui.chat.chat_request import Question
from webui.files.attachments import Limits
from webui.files.vision_tokens import FRAMES_PER_S
from webui.i18n.language import say
from webui.user_error import Failure


@dataclass(frozen=True)
class Knobs:
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
    def limits(self) -> Limits:
        return Limits(int(self.longest), float(self.frames_per_s), int(self.most_frames))

    def question(self, messages: list[dict[str, Any]], page: str, key: str = "", **more: Any) -> Question:
        """Raises Failure where no model is chosen."""
        if not self.model:
            raise Failure(say("No model is chosen."), say("Choose one in the settings, then press retry."))
        tokens = int(self.max_tokens)
        seed = self._seed()
        return Question(self.model, messages, page, self.temperature, self.top_p, tokens, key, seed, **more)

    def _seed(self) -> int | None:
        found = str(self.seed if self.seed is not None else "").strip()
        if not found:
            return None
        if not found.removeprefix("-").isdecimal():
            raise Failure(
                say("The seed is a whole number, found {found}.", found=repr(found[:20])),
                say("Correct or empty it, then press retry."),
            )
        return int(found)
