"""Chooses what is computed in the next iteration: a reduced vllm/v1/core/sched/scheduler.py, first come, first served.

Pure: no clock and no waiting. Each iteration has a budget of tokens: one token for every sequence that is being answered, the
rest for prompts; long prompts are split.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from manyeyes.simulator.kv_cache import BLOCK, ConversationKvCache, KvCache
from manyeyes.simulator.multimodal import EncoderCache
from manyeyes.simulator.request import MediaItem, RunningSequence

Blocked = Literal["arrival", "budget", "seats", "encoder", "kv"]
"""What the first sequence in the queue waits for: the next iteration, its token budget, max_num_seqs, or space in a cache."""


@dataclass
class ScheduledBatch:
    sequences: list[RunningSequence] = field(default_factory=list)
    prefilled: list[RunningSequence] = field(default_factory=list)  # sequences that compute prompt tokens
    prefill_tokens: int = 0
    prefill_pairs: int = 0  # pairs of a prompt token and a token before it
    decode_sequences: int = 0
    context_tokens: int = 0  # context of the sequences that are being answered
    encoded: list[int] = field(default_factory=list)  # vision tokens of each item that is encoded
    queried: int = 0  # tokens looked up in the prefix cache
    cached_tokens: int = 0  # tokens found there
    preempted: int = 0


class Scheduler:
    def __init__(
        self, kv: KvCache | ConversationKvCache, encoder: EncoderCache, max_num_seqs: int, max_num_batched_tokens: int
    ) -> None:
        self.kv = kv
        self.encoder = encoder
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        self.waiting: deque[RunningSequence] = deque()
        self.running: list[RunningSequence] = []
        self.admits = True  # whether sequences are admitted from the queue; not while asleep
        self.blocked: Blocked = "arrival"  # why the first sequence in the queue was not admitted at the last attempt

    def remove(self, sequence: RunningSequence) -> None:
        """Remove a sequence that has ended, in any state."""
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        self._release(sequence)

    def preempt_all(self) -> None:
        """Preempt all running sequences: they lose their computed blocks and wait again, in the same order."""
        while self.running:
            self._preempt_last()

    def schedule(self, now: float) -> ScheduledBatch:
        batch = ScheduledBatch()
        budget = self._schedule_running(batch, self.max_num_batched_tokens)
        if not batch.preempted and self.admits:
            self._schedule_waiting(batch, budget, now)
        return batch

    def finish(self, batch: ScheduledBatch) -> list[tuple[RunningSequence, int]]:
        """Finish an iteration: each completely computed sequence gets one token.

        Return these sequences and their number of tokens.
        """
        produced = []
        for sequence in batch.prefilled:
            if sequence.job.media and not sequence.ended:
                self._release_prefilled(sequence)
        for sequence in batch.sequences:
            if sequence.ended:
                continue
            if sequence.computed == sequence.prompt_tokens + sequence.generated:
                sequence.generated += 1
                produced.append((sequence, sequence.generated))
                if sequence.generated >= len(sequence.job.answer):
                    sequence.ended = True
                    self.remove(sequence)
        return produced

    def _schedule_running(self, batch: ScheduledBatch, budget: int) -> int:
        """Schedule the running sequences. Return the rest of the budget."""
        at = 0
        while at < len(self.running) and budget > 0:
            sequence = self.running[at]
            computed = sequence.computed
            missing_tokens = sequence.prompt_tokens + sequence.generated - computed
            if missing_tokens == 1 and sequence.generated and computed % BLOCK not in (0, BLOCK - 1):
                # Fast path for the most frequent case: one more token of an answer, in a block that it does not fill.
                batch.decode_sequences += 1
                batch.context_tokens += computed
                sequence.computed = computed + 1
                batch.sequences.append(sequence)
                budget -= 1
                at += 1
                continue
            new_tokens, media_to_encode = self._fit_media(sequence, computed, min(missing_tokens, budget), batch)
            if new_tokens and not self._make_room(sequence, computed + new_tokens, batch):
                break  # it was itself the last sequence that could be preempted
            if new_tokens:
                self._schedule(sequence, new_tokens, media_to_encode, batch)
                budget -= new_tokens
            at += 1
        return budget

    def _make_room(self, sequence: RunningSequence, tokens: int, batch: ScheduledBatch) -> bool:
        """Get blocks for a running sequence, if needed by preempting the latest sequences. False if it was preempted itself."""
        while not self.kv.grow(sequence, tokens):
            batch.preempted += 1
            if self._preempt_last() is sequence:
                return False
        return True

    def _preempt_last(self) -> RunningSequence:
        """Preempt the latest sequence."""
        sequence = self.running.pop()
        self._release(sequence)
        sequence.computed = 0
        sequence.preemptions += 1
        self.waiting.appendleft(sequence)
        return sequence

    def _schedule_waiting(self, batch: ScheduledBatch, budget: int, now: float) -> None:
        while self.waiting and budget > 0 and len(self.running) < self.max_num_seqs:
            sequence = self.waiting[0]
            cached_blocks = self.kv.find(sequence)
            computed = len(cached_blocks) * BLOCK
            new_tokens, media_to_encode = self._fit_media(
                sequence, computed, min(sequence.tokens - computed, budget), batch
            )
            if not new_tokens or not self.kv.admit(sequence, cached_blocks, computed + new_tokens):
                self.blocked = "kv" if new_tokens else "encoder"
                self._release(sequence)
                return
            self.waiting.popleft()
            self.running.append(sequence)
            sequence.computed = computed
            if not sequence.preemptions:
                sequence.cached = computed
                sequence.scheduled = now
                if self.kv.prefix_caching:
                    batch.queried += sequence.tokens
                    batch.cached_tokens += computed
            self._schedule(sequence, new_tokens, media_to_encode, batch)
            budget -= new_tokens
        self.blocked = ("budget" if budget <= 0 else "seats") if self.waiting else "arrival"

    def _schedule(
        self, sequence: RunningSequence, new_tokens: int, media_to_encode: list[MediaItem], batch: ScheduledBatch
    ) -> None:
        for medium in media_to_encode:
            self.encoder.add(medium, sequence)
            batch.encoded.append(medium.tokens)
        if sequence.generated and new_tokens == 1:
            batch.decode_sequences += 1
            batch.context_tokens += sequence.computed
        else:
            batch.prefill_tokens += new_tokens
            batch.prefill_pairs += new_tokens * sequence.computed + new_tokens * new_tokens // 2
            batch.prefilled.append(sequence)
        sequence.computed += new_tokens
        batch.sequences.append(sequence)

    def _fit_media(
        self, sequence: RunningSequence, computed: int, new_tokens: int, batch: ScheduledBatch
    ) -> tuple[int, list[MediaItem]]:
        """Return how many of the `new_tokens` tokens after `computed` fit, and the media to encode for them.

        Fewer tokens fit if the encoder cache has no space for a medium.
        """
        media_to_encode: list[MediaItem] = []
        if not sequence.job.media or computed >= len(sequence.job.prompt):
            return new_tokens, media_to_encode
        planned_tokens = sum(batch.encoded)
        for medium in sequence.job.media:
            if medium.offset + medium.tokens <= computed or medium.offset >= computed + new_tokens:
                continue
            if any(medium.key == chosen.key for chosen in media_to_encode) or self.encoder.use(medium, sequence):
                continue
            tokens_to_encode = sum(chosen.tokens for chosen in media_to_encode) + medium.tokens
            if planned_tokens + tokens_to_encode > self.encoder.capacity or not self.encoder.make_room(
                tokens_to_encode
            ):
                return max(0, medium.offset - computed), media_to_encode
            media_to_encode.append(medium)
        return new_tokens, media_to_encode

    def _release_prefilled(self, sequence: RunningSequence) -> None:
        """Release encoder outputs that are already in the KV cache."""
        media = sequence.job.media
        needed = {medium.key for medium in media if medium.offset + medium.tokens > sequence.computed}
        for medium in media:
            if medium.key not in needed:
                self.encoder.release(sequence, medium.key)

    def _release(self, sequence: RunningSequence) -> None:
        self.kv.release(sequence)
        for medium in sequence.job.media:
            self.encoder.release(sequence, medium.key)
