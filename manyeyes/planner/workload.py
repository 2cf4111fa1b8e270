"""What users do, from a seed: conversations that begin at random (Poisson), each a chain of turns. Sizes in tokens; no texts.

A conversation's numbers depend on the seed and its own number alone, so every policy and every number of engines gets the
same ones, in whatever order things happen.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from manyeyes.simulator import token_counts
from manyeyes.simulator.request import EngineRequest, MediaItem

MASK = (1 << 64) - 1
MAX_TURNS = 1_000  # of one conversation; numbers its draws


@dataclass(frozen=True)
class PlannedWorkload:
    """One kind of user. `vary`: answers have between 1 - vary and 1 + vary times `output_tokens`, evenly spread."""

    width: int
    height: int
    images: int = 1  # in the first turn
    words: int = 30  # of each question
    tokens_per_word: float = 1.0
    output_tokens: int = 150
    vary: float = 0.5
    turns: int = 1
    think_s: float = 8.0  # before the next turn: between half of that and one and a half
    min_pixels: int = 65_536
    max_pixels: int = 1_310_720

    @property
    def fitted(self) -> tuple[int, int]:
        """The size that a picture has for the model."""
        return token_counts.fitted(self.width, self.height, self.min_pixels, self.max_pixels)

    @property
    def vision_tokens(self) -> int:
        """Of one picture."""
        return token_counts.image_tokens(*self.fitted)

    @property
    def question_tokens(self) -> int:
        """Of the words of one question."""
        return token_counts.words_tokens(self.words, self.tokens_per_word)

    @property
    def longest_prompt(self) -> int:
        """Tokens of the last turn's prompt and answer, when every answer is as long as can be."""
        longest = round(self.output_tokens * (1 + self.vary))
        return self.prompt_tokens([longest] * (self.turns - 1)) + longest

    def prompt_tokens(self, answers: list[int]) -> int:
        """Of the turn after so many answers of these lengths."""
        pictures = self.images * (self.vision_tokens + token_counts.AROUND_VISION)
        questions = (len(answers) + 1) * (token_counts.PER_MESSAGE + self.question_tokens)
        return (
            pictures + questions + sum(token_counts.PER_MESSAGE + answer for answer in answers) + token_counts.OPENING
        )

    def answer_tokens(self, seed: int, conversation: int, turn: int) -> int:
        """How long the model's answer is."""
        return max(1, round(self.output_tokens * (1 + self.vary * (2 * draw(seed, conversation, 2 * turn) - 1))))

    def pause_s(self, seed: int, conversation: int, turn: int) -> float:
        """Between the answer to this turn and the next question."""
        return self.think_s * (0.5 + draw(seed, conversation, 2 * turn + 1))


def draw(seed: int, conversation: int, number: int) -> float:
    """The `number`-th random number of a conversation, between 0 and 1 (splitmix64, public domain, S. Vigna)."""
    x = (seed * 0x9E3779B97F4A7C15 + conversation * 2 * MAX_TURNS + number + 0x632BE59BD9B4E019) & MASK
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return ((x ^ (x >> 31)) >> 11) / (1 << 53)


def arrivals(seed: int, per_s: float, until_s: float) -> Iterator[float]:
    """When conversations begin."""
    random, at = Random(seed), 0.0
    while (at := at + random.expovariate(per_s)) < until_s:
        yield at


class SimulatedConversation:
    """One of them, on its way. Its turns come one after the other."""

    __slots__ = ("_media", "_prompt", "number", "seed", "turn", "work")

    def __init__(self, work: PlannedWorkload, seed: int, number: int) -> None:
        self.work, self.seed, self.number, self.turn = work, seed, number, 0
        self._prompt = work.prompt_tokens([])
        wide, high = work.fitted if work.images else (0, 0)
        each = work.vision_tokens if work.images else 0
        self._media = tuple(
            MediaItem(
                kind="image",
                key=number * work.images + place,
                offset=4 + place * (each + token_counts.AROUND_VISION),  # 3 tokens open the message, 1 the picture
                tokens=each,
                frames=1,
                source_pixels=work.width * work.height,
                fitted_pixels=wide * high,
            )
            for place in range(work.images)
        )

    @property
    def ended(self) -> bool:
        """Whether the turn that was last asked for is the last one."""
        return self.turn >= self.work.turns

    def next_job(self) -> EngineRequest:
        """The next turn, with everything before it."""
        answer = self.work.answer_tokens(self.seed, self.number, self.turn)
        # Only the lengths of prompt and answer matter here: kv_chains.py knows a conversation by its number.
        job = EngineRequest(
            "", range(self._prompt), self._media, "", [""] * answer, "stop", stream=True, include_usage=False
        )
        self._prompt += answer + 2 * token_counts.PER_MESSAGE + self.work.question_tokens
        self.turn += 1
        return job
