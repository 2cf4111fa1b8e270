"""What requests lose time to, by resource: against the same requests on an idle engine. Pure."""

from manyeyes.planner.result import Outcome

PREPROCESSING = "the thread that preprocesses pictures"
DECODING = "the threads that decode pictures"
PREFILL = "prefill and vision encoder"
DECODE = "decoding (more requests in each iteration)"
SEATS = "places in the batch (max_num_seqs)"
KV = "room in the KV cache"
ROOM = "room in the vision encoder's cache"


def lost(loaded: Outcome, idle: Outcome) -> dict[str, float]:
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
        ROOM: queued("encoder"),
        PREFILL: queued("budget")
        + prefill * queued("arrival")
        + loaded.stage_s("prefill")
        - idle.stage_s("prefill")
        + by_prompts,
        DECODE: (1 - prefill) * queued("arrival") + answer - idle_answer - by_prompts,
    }
    positive = {name: seconds for name, seconds in found.items() if seconds > 0}
    return dict(sorted(positive.items(), key=lambda one: -one[1]))


def first(loaded: Outcome, idle: Outcome) -> str:
    """The resource that costs most, or `nothing`."""
    return next(iter(lost(loaded, idle)), "nothing")
