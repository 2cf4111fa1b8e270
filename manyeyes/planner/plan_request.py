"""What is asked of the planner: the work, what it runs on, and what is good enough."""

from dataclasses import dataclass

from manyeyes.planner.workload import Work
from manyeyes.simulator.profile import Profile


@dataclass(frozen=True)
class Card:
    """One GPU with its model and vLLM's settings for it, as config/ and manyeyes/engine/vllm_flags.py would choose them."""

    profile: Profile
    kv_cache_tokens: int
    max_num_seqs: int
    max_num_batched_tokens: int
    in_flight: int  # requests that the gateway gives it, and that it queues, at a time
    mm_cache_bytes: float
    encoder_tokens: int  # what the vision encoder's cache holds: a batch, or the largest picture


@dataclass(frozen=True)
class Ask:
    """Rates are requests a second, times seconds. A share is between 0 and 1."""

    work: Work
    card: Card
    rps: float
    p95_s: float  # of the time from a request to its last token
    first_p95_s: float | None  # of the time to the first token; None: any
    goodput: float  # the least share of requests that must be answered
    policy: str = "sticky"
    tries: int = 2  # engines that the gateway asks for one request
    seed: int = 1
