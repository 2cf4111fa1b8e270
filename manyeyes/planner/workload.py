"""The workload, the GPU and the results of a simulation.

Conversations start at random (Poisson) and are chains of turns. Only sizes in tokens are simulated, no texts. The sizes of a
conversation depend only on the seed and its number, so every policy and every number of engines gets the same conversations,
in any order of events.
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
MAX_TURNS = 1_000  # of one conversation; each turn has two random numbers


@dataclass(frozen=True)
class PlannedWorkload:
    """One kind of user. `vary`: answers have 1 - vary to 1 + vary times `output_tokens`, uniformly distributed."""

    width: int
    height: int
    images: int = 1  # in the first turn
    words: int = 30  # of each question
    tokens_per_word: float = 1.0
    output_tokens: int = 150
    vary: float = 0.5
    turns: int = 1
    think_s: float = 8.0  # mean pause before the next turn; each pause is 0.5 to 1.5 times as long
    min_pixels: int = 65_536
    max_pixels: int = 1_310_720

    @property
    def fitted(self) -> tuple[int, int]:
        return request.fitted(self.width, self.height, self.min_pixels, self.max_pixels)

    @property
    def vision_tokens(self) -> int:
        """Vision tokens of one image."""
        return request.image_tokens(*self.fitted)

    @property
    def question_tokens(self) -> int:
        return request.words_tokens(self.words, self.tokens_per_word)

    @property
    def longest_prompt(self) -> int:
        """Tokens of the last turn's prompt and answer, if every answer has the maximum length."""
        longest = round(self.output_tokens * (1 + self.vary))
        return self.prompt_tokens([longest] * (self.turns - 1)) + longest

    def prompt_tokens(self, answers: list[int]) -> int:
        """Prompt tokens of the turn that follows answers of these lengths."""
        image_tokens = self.images * (self.vision_tokens + request.AROUND_VISION)
        questions = (len(answers) + 1) * (request.PER_MESSAGE + self.question_tokens)
        return image_tokens + questions + sum(request.PER_MESSAGE + answer for answer in answers) + request.OPENING

    def answer_tokens(self, seed: int, conversation: int, turn: int) -> int:
        return max(1, round(self.output_tokens * (1 + self.vary * (2 * draw(seed, conversation, 2 * turn) - 1))))

    def pause_s(self, seed: int, conversation: int, turn: int) -> float:
        """The pause between the answer to this turn and the next question."""
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
    """One conversation in progress. Its turns follow one another."""

    __slots__ = ("_media", "_prompt", "number", "seed", "turn", "work")

    def __init__(self, work: PlannedWorkload, seed: int, number: int) -> None:
        self.work, self.seed, self.number, self.turn = work, seed, number, 0
        self._prompt = work.prompt_tokens([])
        fitted_width, fitted_height = work.fitted if work.images else (0, 0)
        tokens_per_image = work.vision_tokens if work.images else 0
        self._media = tuple(
            MediaItem(
                kind="image",
                key=number * work.images + index,
                offset=4 + index * (tokens_per_image + request.AROUND_VISION),  # 3 tokens open the message, 1 the image
                tokens=tokens_per_image,
                frames=1,
                source_pixels=work.width * work.height,
                fitted_pixels=fitted_width * fitted_height,
            )
            for index in range(work.images)
        )

    @property
    def ended(self) -> bool:
        """Whether the conversation has no further turn."""
        return self.turn >= self.work.turns

    def next_job(self) -> EngineRequest:
        answer = self.work.answer_tokens(self.seed, self.number, self.turn)
        # Only the lengths of prompt and answer matter: ConversationKvCache identifies a conversation by its number.
        job = EngineRequest(
            "", range(self._prompt), self._media, "", [""] * answer, "stop", stream=True, include_usage=False
        )
        self._prompt += answer + 2 * request.PER_MESSAGE + self.work.question_tokens
        self.turn += 1
        return job


@dataclass(frozen=True)
class GpuSpec:
    """One GPU with its model and vLLM settings, as config/ and manyeyes/engine/vllm_flags.py choose them."""

    profile: TimingProfile
    kv_cache_tokens: int
    max_num_seqs: int
    max_num_batched_tokens: int
    in_flight: int  # maximum number of requests that the gateway sends to it and that it accepts
    mm_cache_bytes: float
    encoder_tokens: int  # capacity of the vision encoder's cache: a batch, or the largest image


@dataclass(frozen=True)
class PlanRequest:
    """What to plan for. Rates are requests a second, times are seconds, fractions are between 0 and 1."""

    work: PlannedWorkload
    gpu_spec: GpuSpec
    rps: float
    p95_s: float  # limit for the time from a request to its last token
    first_p95_s: float | None  # limit for the time to the first token; None: no limit
    goodput: float  # minimum fraction of answered requests
    policy: str = "sticky"
    tries: int = 2  # engines that the gateway tries for one request
    seed: int = 1


class UnknownGpu(Exception):
    """The pool does not exist, or there is no profile of the GPU with the pool's model. `str()` is one sentence."""


def pool_named(cluster: Cluster, name: str) -> Pool:
    """Returns the pool `name`; the first pool if it is empty. Raises UnknownGpu."""
    if not name:
        return cluster.pools[0]
    for pool in cluster.pools:
        if name in pool.names:
            return pool
    raise UnknownGpu(f"POOL={name}: there is no such pool; known: {', '.join(pool.name for pool in cluster.pools)}")


def profile_of(gpu: str, pool: Pool) -> TimingProfile:
    """Finds a profile by GPU name (rtx4090) and size of the pool's model, or reads it from a file. Raises UnknownGpu."""
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


def gpu_spec_of(timing: TimingProfile, pool: Pool) -> GpuSpec:
    """Applies the settings of manyeyes/engine/vllm_flags.py for the GPU's memory."""
    match = re.search(r"(\d+) ?GB", timing.gpu)
    memory = float(match[1]) if match else DEFAULT_GPU_MEMORY_GB
    engine = Engine(name="planned", pool=pool.name, gpu_memory_gb=memory)
    batched_tokens = max_num_batched_tokens(pool, engine)
    video = pool.media.frame_max_pixels * pool.media.video_frames // 2 if pool.media.videos_per_prompt else 0
    return GpuSpec(
        profile=timing,
        kv_cache_tokens=max(timing.kv_cache_tokens, pool.max_model_len),
        max_num_seqs=max_num_seqs(pool, engine),
        max_num_batched_tokens=batched_tokens,
        in_flight=in_flight(pool, engine),
        mm_cache_bytes=4 * 1024**3,  # --mm-processor-cache-gb=4 in manyeyes/engine/vllm_flags.py
        encoder_tokens=max(batched_tokens, pool.media.max_pixels // 1024, video // 1024),
    )


def _model_size(name: str) -> str | None:
    match = re.search(r"(\d+)b\b", name.lower())
    return match[1] if match else None


STAGES = ("render", "preprocessing wait", "preprocessing", "queue", "prefill", "answer")
"""Stages of a request, in order. `render`: chat template, tokenising, decoding of media."""


@dataclass
class SimulationResult:
    """Results for the requests that arrived in the measured time, in seconds, regardless of when they ended."""

    engines: int
    offered_rps: float
    measured_s: float = 0.0  # length of the measured time
    total_s: "array[float]" = field(default_factory=lambda: array("d"))  # to the last token, of each answered request
    first_s: "array[float]" = field(default_factory=lambda: array("d"))  # to the first token
    stages_s: list[float] = field(default_factory=lambda: [0.0] * len(STAGES))  # sums
    requests: int = 0  # measured requests
    refused: int = 0  # 429: every engine was full
    failed: int = 0  # 503, or an error in a stream whose status was 200
    tokens: int = 0
    images: int = 0
    ended_in_time: int = 0  # requests answered within the measured time, regardless of their arrival
    all_requests: int = 0  # including requests outside the measured time
    all_ended: int = 0
    backlog: tuple[int, int] = (0, 0)  # requests in progress at the start and the end of the measured time
    preprocessing_busy: float = 0.0  # fraction of the time, mean of all engines
    gpu_busy: float = 0.0
    encode_share: float = 0.0  # fraction of the GPU's busy time
    prefill_share: float = 0.0
    kv_used: float = 0.0  # mean fraction of blocks in use while the GPU is busy
    waited_s: dict[str, float] = field(default_factory=dict)  # in the engines' queues, by reason
    preempted: int = 0
    cached_share: float = 0.0  # fraction of prompt tokens found in the prefix cache
    max_per_engine: int = 0
    min_per_engine: int = 0
    cpu_s: float = 0.0  # CPU time of the simulation
    partial: bool = False  # stopped by Ctrl-C

    @property
    def answered(self) -> int:
        return len(self.total_s)

    @property
    def rps(self) -> float:
        return self.ended_in_time / self.measured_s if self.measured_s else 0.0

    @property
    def goodput(self) -> float:
        """Fraction of answered requests among the measured requests that have ended."""
        ended = self.answered + self.refused + self.failed
        return self.answered / ended if ended else 1.0

    @property
    def keeps_up(self) -> bool:
        """Whether the backlog grew by no more than random variation."""
        before, after = self.backlog
        return bool(after - before <= max(0.02 * self.requests, 4 * max(before, 1) ** 0.5 + 4))

    def stage_s(self, name: str) -> float:
        """Mean time of an answered request in one stage."""
        return self.stages_s[STAGES.index(name)] / max(1, self.answered)


PREPROCESSING = "the image preprocessing thread"
DECODING = "the image decoding threads"
PREFILL = "prefill and vision encoder"
DECODE = "decoding (more requests in each iteration)"
SEATS = "the size of the batch (max_num_seqs)"
KV = "the size of the KV cache"
ENCODER_ROOM = "the size of the vision encoder's cache"


def lost_time_by_resource(loaded: SimulationResult, idle: SimulationResult) -> dict[str, float]:
    """Mean additional seconds of a request compared with an idle engine, by resource; the largest first.

    Time in the queue is attributed to the resource that the request waited for. Waiting for the current iteration, and
    slower answers, are attributed in proportion to the GPU's time: prompts and images of other requests, or more sequences
    in each iteration.
    """
    prefill = loaded.prefill_share + loaded.encode_share
    waited, queue = sum(loaded.waited_s.values()), loaded.stage_s("queue")

    def queued(reason: str) -> float:
        return queue * loaded.waited_s.get(reason, 0.0) / waited if waited else 0.0

    answer, idle_answer = loaded.stage_s("answer"), idle.stage_s("answer")
    by_prompts = max(0.0, min(prefill * answer, answer - idle_answer))
    seconds_by_resource = {
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
    positive = {name: seconds for name, seconds in seconds_by_resource.items() if seconds > 0}
    return dict(sorted(positive.items(), key=lambda item: -item[1]))


def first_bottleneck(loaded: SimulationResult, idle: SimulationResult) -> str:
    """Returns the resource that costs most time, or `nothing`."""
    return next(iter(lost_time_by_resource(loaded, idle)), "nothing")
