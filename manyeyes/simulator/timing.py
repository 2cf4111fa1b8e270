"""How long an iteration takes. Pure: what it computes in, seconds out.

A sum of terms, each linear in one quantity, so that a few measurements on a real engine determine them. It leaves out that
launches hide behind the work of a large batch.
"""

from manyeyes.simulator.profile import Profile
from manyeyes.simulator.scheduler import Batch


def iteration_s(batch: Batch, profile: Profile) -> float:
    """Seconds from the start of an iteration to its tokens."""
    return (
        profile.iteration_ms / 1e3
        + prefill_s(batch, profile)
        + profile.decode_us / 1e6 * batch.decode_sequences
        + profile.context_ns / 1e9 * batch.context_tokens
        + (encoding_s(batch.encoded, profile) if batch.encoded else 0.0)
    )


def prefill_s(batch: Batch, profile: Profile) -> float:
    """Seconds of an iteration that its prompt tokens take."""
    return profile.prefill_us / 1e6 * batch.prefill_tokens + profile.prefill_pair_ns / 1e9 * batch.prefill_pairs


def encoding_s(encoded: list[int], profile: Profile) -> float:
    """Seconds of an iteration that items of so many vision tokens take."""
    pairs = sum(tokens * tokens for tokens in encoded) / 2 if profile.encode_pair_ns else 0.0
    items_s, tokens_s = profile.encode_item_ms / 1e3 * len(encoded), profile.encode_us / 1e6 * sum(encoded)
    return items_s + tokens_s + profile.encode_pair_ns / 1e9 * pairs
