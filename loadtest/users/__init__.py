"""What people do, one file each. A mix names several with their shares: `image:3,video:1`."""

from dataclasses import dataclass

from loadtest.users import agent, chat, multi_image, ocr_batch, shared_document, single_image, text, video
from loadtest.users.scenario import Scenario

ALL = {
    file.SCENARIO.name: file.SCENARIO
    for file in (single_image, ocr_batch, chat, multi_image, video, agent, shared_document, text)
}


@dataclass(frozen=True)
class Mix:
    """Scenarios with whole shares: of so many users in a row, so many do this one."""

    parts: tuple[tuple[Scenario, int], ...]

    def of(self, user: int) -> Scenario:
        """What this user does. Shares hold for any row of users: none has to wait for its kind's turn."""
        at = user % sum(share for _, share in self.parts)
        for scenario, share in self.parts:
            if at < share:
                return scenario
            at -= share
        raise AssertionError("unreachable: at is below the sum of shares")


def mix(text: str) -> Mix:
    """Raises ValueError with one sentence."""
    parts = []
    for word in text.split(","):
        name, _, share = word.strip().partition(":")
        if name not in ALL:
            raise ValueError(f"no scenario {name!r}; there are {', '.join(ALL)}, and mixes such as image:3,video:1")
        if share and not (share.isdigit() and int(share)):
            raise ValueError(f"{word.strip()!r} wants a whole share after the colon, as in {name}:3")
        parts.append((ALL[name], int(share or 1)))
    return Mix(tuple(parts))
