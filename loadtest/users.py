"""What one user does: conversations made from a seed alone, the same on every run and for every number of engines.

A mix names several scenarios with their shares: `image:3,video:1`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from loadtest.content import SeededPicture, SeededVideo, question, sentence


@dataclass(frozen=True)
class UserTurn:
    text: str
    pictures: tuple[SeededPicture, ...] = ()
    video: SeededVideo | None = None


@dataclass(frozen=True)
class UserConversation:
    """Each turn is sent with everything before it, answers too, as OpenAI clients do."""

    turns: tuple[UserTurn, ...]


@dataclass(frozen=True)
class Scenario:
    """`conversation(seed, user, number)`: the n-th conversation of a user.

    `think_s`: the pause before a user's next turn lies between half of that and one and a half. `answer_tokens`: the
    length of every answer; with `ignore_eos` so that a run does not depend on what the model has to say (vLLM's extension
    of the API; others ignore it).
    """

    name: str
    title: str
    think_s: float
    answer_tokens: int
    conversation: Callable[[int, int, int], UserConversation]


def ask_about_image(seed: int, user: int, number: int) -> UserConversation:
    name = f"image {seed} {user} {number}"
    text = f"Describe this picture. {question(Random(name), 12)}"
    return UserConversation((UserTurn(text, (SeededPicture("photo", name),)),))


OCR_INSTRUCTION = "Write down all text on this page, line by line, as it is. Do not add anything."


def read_page(seed: int, user: int, number: int) -> UserConversation:
    return UserConversation((UserTurn(OCR_INSTRUCTION, (SeededPicture("page", f"pages {seed} {user} {number}"),)),))


CHAT_TURNS = 6


def chat_about_image(seed: int, user: int, number: int) -> UserConversation:
    name = f"chat {seed} {user} {number}"
    random = Random(name)
    first = UserTurn(f"Look at this picture. {question(random, 12)}", (SeededPicture("photo", name),))
    return UserConversation((first, *(UserTurn(question(random, 16)) for _ in range(CHAT_TURNS - 1))))


PICTURES = 4


def compare_images(seed: int, user: int, number: int) -> UserConversation:
    name = f"images {seed} {user} {number}"
    text = f"Compare these pictures. {question(Random(name), 12)}"
    return UserConversation(
        (UserTurn(text, tuple(SeededPicture("photo", f"{name} {one}") for one in range(PICTURES))),)
    )


def ask_about_video(seed: int, user: int, number: int) -> UserConversation:
    name = f"video {seed} {user} {number}"
    random = Random(name)
    text = f"What happens in this video? {question(random, 12)}"
    return UserConversation((UserTurn(text, video=SeededVideo(name, seconds=random.randint(4, 12))),))


AGENT_STEPS = 4  # as many pictures as an engine takes in one request with the shipped configuration
AGENT_TASK = "You operate this screen. Answer with one action: click(x, y), type(text) or done()."


def operate_screen(seed: int, user: int, number: int) -> UserConversation:
    name = f"agent {seed} {user} {number}"
    random = Random(name)
    first = UserTurn(f"{AGENT_TASK} Goal: {question(random, 16)}", (SeededPicture("screen", f"{name} 0"),))
    later = (
        UserTurn("Done. The next screen:", (SeededPicture("screen", f"{name} {step}"),))
        for step in range(1, AGENT_STEPS)
    )
    return UserConversation((first, *later))


def ask_about_document(seed: int, user: int, number: int) -> UserConversation:
    text = question(Random(f"document {seed} {user} {number}"), 16)
    return UserConversation((UserTurn(text, (SeededPicture("page", f"document {seed}"),)),))


TEXT_TURNS = 4


def chat_in_text(seed: int, user: int, number: int) -> UserConversation:
    random = Random(f"text {seed} {user} {number}")
    first = "Hello, can you help me with something?" if (user + number) % 2 else sentence(random, 40)
    return UserConversation((UserTurn(first), *(UserTurn(question(random, 30)) for _ in range(TEXT_TURNS - 1))))


ALL = {
    scenario.name: scenario
    for scenario in (
        Scenario("image", "One question about one picture", 1.0, 64, ask_about_image),
        Scenario("pages", "Document pages, one after the other (OCR)", 0.0, 256, read_page),
        Scenario("chat", "Six turns about one picture", 2.0, 48, chat_about_image),
        Scenario("images", "One question about four pictures", 1.0, 64, compare_images),
        Scenario("video", "One question about one video", 1.0, 64, ask_about_video),
        Scenario("agent", "A chain of screenshots and actions", 0.2, 24, operate_screen),
        Scenario("document", "One document, asked by everybody", 1.0, 48, ask_about_document),
        Scenario("text", "Chats without pictures", 2.0, 64, chat_in_text),
    )
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
