"""User scenarios of load tests. Conversations depend only on a seed, so they are equal in every run and for every number of engines.

A mix combines scenarios with shares: `image:3,video:1`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from loadtest.content import SeededImage, SeededVideo, question, sentence


@dataclass(frozen=True)
class UserTurn:
    text: str
    images: tuple[SeededImage, ...] = ()
    video: SeededVideo | None = None


@dataclass(frozen=True)
class UserConversation:
    """The turns of one conversation. Each turn is sent with all earlier turns and answers, as OpenAI clients do."""

    turns: tuple[UserTurn, ...]


@dataclass(frozen=True)
class Scenario:
    """One kind of user. `conversation(seed, user, number)` returns the n-th conversation of a user.

    `think_s`: the mean pause before the next turn; each pause is 0.5 to 1.5 times as long. `answer_tokens`: the length of
    every answer. Requests set `ignore_eos` (a vLLM extension that other servers ignore), so the length of an answer does
    not depend on the model.
    """

    name: str
    title: str
    think_s: float
    answer_tokens: int
    conversation: Callable[[int, int, int], UserConversation]


def ask_about_image(seed: int, user: int, number: int) -> UserConversation:
    name = f"image {seed} {user} {number}"
    text = f"Describe this image. {question(Random(name), 12)}"
    return UserConversation((UserTurn(text, (SeededImage("photo", name),)),))


OCR_INSTRUCTION = "Write down all text on this page, line by line, exactly as printed. Do not add anything."


def read_page(seed: int, user: int, number: int) -> UserConversation:
    return UserConversation((UserTurn(OCR_INSTRUCTION, (SeededImage("page", f"pages {seed} {user} {number}"),)),))


CHAT_TURNS = 6


def chat_about_image(seed: int, user: int, number: int) -> UserConversation:
    name = f"chat {seed} {user} {number}"
    random = Random(name)
    first = UserTurn(f"Look at this image. {question(random, 12)}", (SeededImage("photo", name),))
    return UserConversation((first, *(UserTurn(question(random, 16)) for _ in range(CHAT_TURNS - 1))))


IMAGES_PER_COMPARISON = 4


def compare_images(seed: int, user: int, number: int) -> UserConversation:
    name = f"images {seed} {user} {number}"
    text = f"Compare these images. {question(Random(name), 12)}"
    return UserConversation(
        (UserTurn(text, tuple(SeededImage("photo", f"{name} {index}") for index in range(IMAGES_PER_COMPARISON))),)
    )


def ask_about_video(seed: int, user: int, number: int) -> UserConversation:
    name = f"video {seed} {user} {number}"
    random = Random(name)
    text = f"What happens in this video? {question(random, 12)}"
    return UserConversation((UserTurn(text, video=SeededVideo(name, seconds=random.randint(4, 12))),))


AGENT_STEPS = 4  # the most images that an engine accepts in one request with the shipped configuration
AGENT_TASK = "You operate this screen. Answer with one action: click(x, y), type(text) or done()."


def operate_screen(seed: int, user: int, number: int) -> UserConversation:
    name = f"agent {seed} {user} {number}"
    random = Random(name)
    first = UserTurn(f"{AGENT_TASK} Goal: {question(random, 16)}", (SeededImage("screen", f"{name} 0"),))
    later = (
        UserTurn("Done. The next screen:", (SeededImage("screen", f"{name} {step}"),)) for step in range(1, AGENT_STEPS)
    )
    return UserConversation((first, *later))


def ask_about_document(seed: int, user: int, number: int) -> UserConversation:
    text = question(Random(f"document {seed} {user} {number}"), 16)
    return UserConversation((UserTurn(text, (SeededImage("page", f"document {seed}"),)),))


TEXT_TURNS = 4


def chat_in_text(seed: int, user: int, number: int) -> UserConversation:
    random = Random(f"text {seed} {user} {number}")
    first = "Hello, can you help me with something?" if (user + number) % 2 else sentence(random, 40)
    return UserConversation((UserTurn(first), *(UserTurn(question(random, 30)) for _ in range(TEXT_TURNS - 1))))


ALL = {
    scenario.name: scenario
    for scenario in (
        Scenario("image", "One question about one image", 1.0, 64, ask_about_image),
        Scenario("pages", "Document pages, one page per request (OCR)", 0.0, 256, read_page),
        Scenario("chat", "Six turns about one image", 2.0, 48, chat_about_image),
        Scenario("images", "One question about four images", 1.0, 64, compare_images),
        Scenario("video", "One question about one video", 1.0, 64, ask_about_video),
        Scenario("agent", "A chain of screenshots and actions", 0.2, 24, operate_screen),
        Scenario("document", "One document, shared by all users", 1.0, 48, ask_about_document),
        Scenario("text", "Chats without images", 2.0, 64, chat_in_text),
    )
}


@dataclass(frozen=True)
class Mix:
    """Scenarios with integer shares: `image:3,video:1` gives three of four consecutive users the scenario `image`."""

    parts: tuple[tuple[Scenario, int], ...]

    def of(self, user: int) -> Scenario:
        """The scenario of this user. The shares hold for any group of consecutive users."""
        at = user % sum(share for _, share in self.parts)
        for scenario, share in self.parts:
            if at < share:
                return scenario
            at -= share
        raise AssertionError("unreachable: at is below the sum of shares")


def mix(text: str) -> Mix:
    """Parses `image:3,video:1`. Raises ValueError with a one-sentence message."""
    parts = []
    for word in text.split(","):
        name, _, share = word.strip().partition(":")
        if name not in ALL:
            raise ValueError(
                f"unknown scenario {name!r}. Use one of {', '.join(ALL)}, or a mix such as image:3,video:1"
            )
        if share and not (share.isdigit() and int(share)):
            raise ValueError(f"{word.strip()!r}: expected a whole number above 0 after the colon, as in {name}:3")
        parts.append((ALL[name], int(share or 1)))
    return Mix(tuple(parts))
