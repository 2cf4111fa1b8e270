"""What a simulated run brought: the times of every measured request in plain arrays, and which resource they were lost to."""

from array import array
from dataclasses import dataclass, field

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
