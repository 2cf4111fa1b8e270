"""How much work one engine has, as it says itself. Pure values."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Load:
    """One look at an engine's own counters. Totals count since its process started and begin anew with it."""

    at_s: float
    """When, on the monotonic clock."""
    in_flight: int
    """Requests that are inside it: from `/load` where it has that, else those that run and wait."""
    running: int = 0
    """In the batch that the GPU works on (vllm:num_requests_running)."""
    waiting: int = 0
    """In its queue (vllm:num_requests_waiting)."""
    kv_cache_share: float = 0.0
    """Used part of its KV cache, 0 to 1 (vllm:kv_cache_usage_perc)."""
    generation_tokens_total: float = 0.0
    """Tokens answered (vllm:generation_tokens_total)."""
    prompt_tokens_total: float = 0.0
    """Tokens read (vllm:prompt_tokens_total)."""
    preemptions_total: float = 0.0
    """Requests thrown back for want of KV cache (vllm:num_preemptions_total)."""
    iterations_total: float = 0.0
    """Steps of the engine core (vllm:iteration_tokens_total_count)."""
    queue_s_total: float = 0.0
    """Seconds that requests waited in its queue, all together (vllm:request_queue_time_seconds_sum)."""
    queue_requests_total: float = 0.0
    """How many requests those were (vllm:request_queue_time_seconds_count)."""
    tokens_per_s: float | None = None
    """Tokens answered per second since the look before; None at the first one."""

    @property
    def hidden_queue(self) -> int:
        """Requests that neither run nor wait: their pictures are being prepared on the CPU, where the engine's own counters read 0."""
        return max(0, self.in_flight - self.running - self.waiting)
