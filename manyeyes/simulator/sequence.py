"""One job on its way through the engine."""

import asyncio
from dataclasses import dataclass, field

from manyeyes.simulator.request import Job


@dataclass(eq=False, slots=True)
class Sequence:
    """How far a job has come. Times are seconds of one monotonic clock."""

    job: Job
    arrived: float  # before rendering, as vLLM counts
    queued: float = 0.0  # handed to the scheduler
    scheduled: float = 0.0  # first iteration
    first_token: float = 0.0
    last_token: float = 0.0
    computed: int = 0  # tokens whose KV there is
    generated: int = 0  # tokens of the answer that there are
    cached: int = 0  # prompt tokens found in the prefix cache at first
    preemptions: int = 0
    ended: bool = False  # answered, aborted or given up: nothing comes any more
    hashes: list[int] = field(default_factory=list)  # of the full blocks of prompt and answer, see blocks.py
    chain: int = 0  # the conversation whose blocks it continues, where kv_chains.py counts instead of hashes
    full: int = 0  # blocks that were full when last looked at
    held: list[int] = field(default_factory=list)  # hashes of blocks in the prefix cache that it holds
    private: int = 0  # other blocks that it holds
    waiter: asyncio.Future[None] | None = None  # who is to be told of more tokens
    prompt_tokens: int = field(init=False)

    def __post_init__(self) -> None:
        self.prompt_tokens = len(self.job.prompt)

    @property
    def tokens(self) -> int:
        """Prompt and answer as far as known."""
        return self.prompt_tokens + self.generated

    @property
    def answered(self) -> bool:
        return self.generated >= len(self.job.answer)

    def wake(self) -> None:
        """Tell whoever waits."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)
