"""What users do, from a seed: conversations that begin at random (Poisson), each a chain of turns. Sizes in tokens; no texts.

A conversation's numbers depend on the seed and its own number alone, so every policy and every number of engines gets the
same ones, in whatever order things happen.
"""

import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from manyeyes.config.cluster import Cluster
from manyeyes.config.engines import DEFAULT_GPU_MEMORY_GB, Engine, in_flight, max_num_batched_tokens, max_num_seqs
from manyeyes.config.pools import Pool
from manyeyes.simulator import profile, request
from manyeyes.simulator.profile import TimingProfile
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
        return request.fitted(self.width, self.height, self.min_pixels, self.max_pixels)

    @property
    def vision_tokens(self) -> int:
        """Of one picture."""
        return request.image_tokens(*self.fitted)

    @property
    def question_tokens(self) -> int:
        return request.words_tokens(self.words, self.tokens_per_word)

    @property
    def longest_prompt(self) -> int:
        """Tokens of the last turn's prompt and answer, when every answer is as long as can be."""
        longest = round(self.output_tokens * (1 + self.vary))
        return self.prompt_tokens([longest] * (self.turns - 1)) + longest

    def prompt_tokens(self, answers: list[int]) -> int:
        """Of the turn after so many answers of these lengths."""
        pictures = self.images * (self.vision_tokens + request.AROUND_VISION)
        questions = (len(answers) + 1) * (request.PER_MESSAGE + self.question_tokens)
        return pictures + questions + sum(request.PER_MESSAGE + answer for answer in answers) + request.OPENING

    def answer_tokens(self, seed: int, conversation: int, turn: int) -> int:
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
                offset=4 + place * (each + request.AROUND_VISION),  # 3 tokens open the message, 1 the picture
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
        answer = self.work.answer_tokens(self.seed, self.number, self.turn)
        # Only the lengths of prompt and answer matter here: ConversationKvCache knows a conversation by its number.
        job = EngineRequest(
            "", range(self._prompt), self._media, "", [""] * answer, "stop", stream=True, include_usage=False
        )
        self._prompt += answer + 2 * request.PER_MESSAGE + self.work.question_tokens
        self.turn += 1
        return job


@dataclass(frozen=True)
class GpuSpec:
    """One GPU with its model and vLLM's settings for it, as config/ and manyeyes/engine/vllm_flags.py would choose them."""

    profile: TimingProfile
    kv_cache_tokens: int
    max_num_seqs: int
    max_num_batched_tokens: int
    in_flight: int  # requests that the gateway gives it, and that it queues, at a time
    mm_cache_bytes: float
    encoder_tokens: int  # what the vision encoder's cache holds: a batch, or the largest picture


@dataclass(frozen=True)
class PlanRequest:
    """Rates are requests a second, times seconds. A share is between 0 and 1."""

    work: PlannedWorkload
    card: GpuSpec
    rps: float
    p95_s: float  # of the time from a request to its last token
    first_p95_s: float | None  # of the time to the first token; None: any
    goodput: float  # the least share of requests that must be answered
    policy: str = "sticky"
    tries: int = 2  # engines that the gateway asks for one request
    seed: int = 1


class UnknownGpu(Exception):
    """There is no such pool, or no profile of that GPU with that pool's model. `str()` is one sentence."""


def pool_named(cluster: Cluster, name: str) -> Pool:
    """The pool that is asked about; the first one where none is named. Raises UnknownCard."""
    if not name:
        return cluster.pools[0]
    for pool in cluster.pools:
        if name in pool.names:
            return pool
    raise UnknownGpu(f"POOL={name}: there is no such pool; known: {', '.join(pool.name for pool in cluster.pools)}")


def profile_of(gpu: str, pool: Pool) -> TimingProfile:
    """By a GPU's name (rtx4090) and the size of the pool's model, or from a file. Raises UnknownCard."""
    if Path(gpu).suffix in (".yaml", ".yml"):
        try:
            return profile.load_profile(gpu)
        except ValueError as error:
            raise UnknownGpu(f"GPU={error}") from None
    size = _model_size(pool.model) or _model_size(pool.name)
    for name in profile.profile_names():
        if name.startswith(f"{gpu.lower()}-") and size is not None and _model_size(name) == size:
            return profile.load_profile(name)
    raise UnknownGpu(
        f"GPU={gpu} POOL={pool.name}: there is no profile of {pool.model} on that GPU; known: "
        f"{', '.join(profile.profile_names())}, or a file that `manyeyes calibrate` wrote"
    )


def gpu_spec_of(wanted: TimingProfile, pool: Pool) -> GpuSpec:
    """With the flags of manyeyes/engine/vllm_flags.py for that much memory."""
    found = re.search(r"(\d+) ?GB", wanted.gpu)
    memory = float(found[1]) if found else DEFAULT_GPU_MEMORY_GB
    engine = Engine(name="planned", pool=pool.name, gpu_memory_gb=memory)
    batched = max_num_batched_tokens(pool, engine)
    video = pool.media.frame_max_pixels * pool.media.video_frames // 2 if pool.media.videos_per_prompt else 0
    return GpuSpec(
        profile=wanted,
        kv_cache_tokens=max(wanted.kv_cache_tokens, pool.max_model_len),
        max_num_seqs=max_num_seqs(pool, engine),
        max_num_batched_tokens=batched,
        in_flight=in_flight(pool, engine),
        mm_cache_bytes=4 * 1024**3,  # --mm-processor-cache-gb=4 in manyeyes/engine/vllm_flags.py
        encoder_tokens=max(batched, pool.media.max_pixels // 1024, video // 1024),
    )


def _model_size(name: str) -> str | None:
    found = re.search(r"(\d+)b\b", name.lower())
    return found[1] if found else None


STAGES = ("render", "preprocessing wait", "preprocessing", "queue", "prefill", "answer")
"""In the order in which a request goes through them. `render`: template, tokens, decoding of media."""


@dataclass
class SimulationResult:
    """Requests that arrived in the measured time, whenever they ended. Seconds."""

    engines: int
    offered_rps: float
    measured_s: float = 0.0  # length of the measured time
    total_s: "array[float]" = field(default_factory=lambda: array("d"))  # to the last token, of each answered one
    first_s: "array[float]" = field(default_factory=lambda: array("d"))  # to the first token
    stages_s: list[float] = field(default_factory=lambda: [0.0] * len(STAGES))  # sums
    requests: int = 0  # measured ones
    refused: int = 0  # 429: every engine was full
    failed: int = 0  # 503, or an error in a stream whose status was 200
    tokens: int = 0
    pictures: int = 0
    ended_in_time: int = 0  # requests answered within the measured time, whenever they came
    all_requests: int = 0  # with those before and after the measured time
    all_ended: int = 0
    backlog: tuple[int, int] = (0, 0)  # requests under way when the measured time began and ended
    preprocessing_busy: float = 0.0  # share of time, mean of all engines
    gpu_busy: float = 0.0
    encode_share: float = 0.0  # of the time the GPU is busy
    prefill_share: float = 0.0
    kv_used: float = 0.0  # mean share of blocks while the GPU is busy
    waited_s: dict[str, float] = field(default_factory=dict)  # in engines' queues, by what was waited for
    preempted: int = 0
    cached_share: float = 0.0  # of prompt tokens, found in the prefix cache
    most_per_engine: int = 0
    fewest_per_engine: int = 0
    cpu_s: float = 0.0  # that the simulation took
    partial: bool = False  # ended by Ctrl-C

    @property
    def answered(self) -> int:
        return len(self.total_s)

    @property
    def rps(self) -> float:
        return self.ended_in_time / self.measured_s if self.measured_s else 0.0

    @property
    def goodput(self) -> float:
        """Share of measured requests that were answered, of those that have ended."""
        ended = self.answered + self.refused + self.failed
        return self.answered / ended if ended else 1.0

    @property
    def keeps_up(self) -> bool:
        """Whether as many requests were answered as came, but for chance."""
        before, after = self.backlog
        return bool(after - before <= max(0.02 * self.requests, 4 * max(before, 1) ** 0.5 + 4))

    def stage_s(self, name: str) -> float:
        """Mean time of an answered request in one stage."""
        return self.stages_s[STAGES.index(name)] / max(1, self.answered)


PREPROCESSING = "the thread that preprocesses pictures"
DECODING = "the threads that decode pictures"
PREFILL = "prefill and vision encoder"
DECODE = "decoding (more requests in each iteration)"
SEATS = "places in the batch (max_num_seqs)"
KV = "room in the KV cache"
ENCODER_ROOM = "room in the vision encoder's cache"


def lost_time_by_resource(loaded: SimulationResult, idle: SimulationResult) -> dict[str, float]:
    """Mean seconds that a request takes longer than on an idle engine, by resource; the largest first.

    Waits in the queue are counted by what was waited for. What an iteration under way cost, and by how much answers became
    slower, is shared out as the GPU's time is: prompts and pictures of others, or more sequences in each iteration.
    """
    prefill = loaded.prefill_share + loaded.encode_share
    waited, queue = sum(loaded.waited_s.values()), loaded.stage_s("queue")

    def queued(reason: str) -> float:
        return queue * loaded.waited_s.get(reason, 0.0) / waited if waited else 0.0

    answer, idle_answer = loaded.stage_s("answer"), idle.stage_s("answer")
    by_prompts = max(0.0, min(prefill * answer, answer - idle_answer))
    found = {
        DECODING: loaded.stage_s("render") - idle.stage_s("render"),
        PREPROCESSING: loaded.stage_s("preprocessing wait") - idle.stage_s("preprocessing wait"),
        SEATS: queued("seats"),
        KV: queued("kv"),
        ENCODER_ROOM: queued("encoder"),
        PREFILL: queued("budget")
        + prefill * queued("arrival")
        + loaded.stage_s("prefill")
        - idle.stage_s("prefill")
        + by_prompts,
        DECODE: (1 - prefill) * queued("arrival") + answer - idle_answer - by_prompts,
    }
    positive = {name: seconds for name, seconds in found.items() if seconds > 0}
    return dict(sorted(positive.items(), key=lambda one: -one[1]))


def first_bottleneck(loaded: SimulationResult, idle: SimulationResult) -> str:
    """The resource that costs most, or `nothing`."""
    return next(iter(lost_time_by_resource(loaded, idle)), "nothing")
