"""Who computes what in the next iteration: vllm/v1/core/sched/scheduler.py, first come first served, in little.

Pure: no clock and no waiting. Each iteration has a budget of tokens: one for every sequence that already answers, the rest
for prompts, in pieces when they are long.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from manyeyes.simulator.kv_cache import BLOCK, ConversationKvCache, KvCache
from manyeyes.simulator.multimodal import EncoderCache
from manyeyes.simulator.request import MediaItem, RunningSequence

Blocked = Literal["arrival", "budget", "seats", "encoder", "kv"]
"""What the first in the queue waits for: the next look at the queue, tokens of an iteration, max_num_seqs, room."""


@dataclass
class ScheduledBatch:
    sequences: list[RunningSequence] = field(default_factory=list)
    prefilled: list[RunningSequence] = field(
        default_factory=list
    )  # those of them whose prompt is computed, or a part of it
    prefill_tokens: int = 0
    prefill_pairs: int = 0  # of each of them with those before it
    decode_sequences: int = 0
    context_tokens: int = 0  # what the answering sequences look back at
    encoded: list[int] = field(default_factory=list)  # vision tokens of each item that is encoded
    queried: int = 0  # tokens looked up in the prefix cache
    found: int = 0  # tokens found there
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
        self.admits = True  # takes from the queue; not while asleep
        self.blocked: Blocked = "arrival"  # why the first in the queue was not let in, when last looked at

    def remove(self, sequence: RunningSequence) -> None:
        """Forget a sequence that has ended, at whatever point."""
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        self._release(sequence)

    def put_all_back(self) -> None:
        """Running sequences lose what was computed for them and wait again, in the same order."""
        while self.running:
            self._put_back()

    def schedule(self, now: float) -> ScheduledBatch:
        batch = ScheduledBatch()
        budget = self._schedule_running(batch, self.max_num_batched_tokens)
        if not batch.preempted and self.admits:
            self._schedule_waiting(batch, budget, now)
        return batch

    def finish(self, batch: ScheduledBatch) -> list[tuple[RunningSequence, int]]:
        """The iteration is over: one token more for each sequence that is computed to its end.

        Says which, and how many tokens it has.
        """
        produced = []
        for sequence in batch.prefilled:
            if sequence.job.media and not sequence.ended:
                self._release_seen(sequence)
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
        """Says what is left of the budget."""
        at = 0
        while at < len(self.running) and budget > 0:
            sequence = self.running[at]
            computed = sequence.computed
            missing = sequence.prompt_tokens + sequence.generated - computed
            if missing == 1 and sequence.generated and computed % BLOCK not in (0, BLOCK - 1):
                # One more token of an answer, in a block that it has and does not fill: most of all work there is.
                batch.decode_sequences += 1
                batch.context_tokens += computed
                sequence.computed = computed + 1
                batch.sequences.append(sequence)
                budget -= 1
                at += 1
                continue
            new, encode = self._with_media(sequence, computed, min(missing, budget), batch)
            if new and not self._make_room(sequence, computed + new, batch):
                break  # it was itself the last one that could be put back
            if new:
                self._take(sequence, new, encode, batch)
                budget -= new
            at += 1
        return budget

    def _make_room(self, sequence: RunningSequence, tokens: int, batch: ScheduledBatch) -> bool:
        """Blocks for a running sequence, if need be those of the sequences that came last. False if its own went too."""
        while not self.kv.grow(sequence, tokens):
            batch.preempted += 1
            if self._put_back() is sequence:
                return False
        return True

    def _put_back(self) -> RunningSequence:
        """Preempt the sequence that came last."""
        victim = self.running.pop()
        self._release(victim)
        victim.computed = 0
        victim.preemptions += 1
        self.waiting.appendleft(victim)
        return victim

    def _schedule_waiting(self, batch: ScheduledBatch, budget: int, now: float) -> None:
        while self.waiting and budget > 0 and len(self.running) < self.max_num_seqs:
            sequence = self.waiting[0]
            found = self.kv.find(sequence)
            computed = len(found) * BLOCK
            new, encode = self._with_media(sequence, computed, min(sequence.tokens - computed, budget), batch)
            if not new or not self.kv.admit(sequence, found, computed + new):
                self.blocked = "kv" if new else "encoder"
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
                    batch.found += computed
            self._take(sequence, new, encode, batch)
            budget -= new
        self.blocked = ("budget" if budget <= 0 else "seats") if self.waiting else "arrival"

    def _take(self, sequence: RunningSequence, new: int, encode: list[MediaItem], batch: ScheduledBatch) -> None:
        for medium in encode:
            self.encoder.add(medium, sequence)
            batch.encoded.append(medium.tokens)
        if sequence.generated and new == 1:
            batch.decode_sequences += 1
            batch.context_tokens += sequence.computed
        else:
            batch.prefill_tokens += new
            batch.prefill_pairs += new * sequence.computed + new * new // 2
            batch.prefilled.append(sequence)
        sequence.computed += new
        batch.sequences.append(sequence)

    def _with_media(
        self, sequence: RunningSequence, computed: int, new: int, batch: ScheduledBatch
    ) -> tuple[int, list[MediaItem]]:
        """What has to be encoded for the `new` tokens after `computed`; fewer tokens where the encoder has no room."""
        encode: list[MediaItem] = []
        if not sequence.job.media or computed >= len(sequence.job.prompt):
            return new, encode
        planned = sum(batch.encoded)
        for medium in sequence.job.media:
            if medium.offset + medium.tokens <= computed or medium.offset >= computed + new:
                continue
            if any(medium.key == other.key for other in encode) or self.encoder.use(medium, sequence):
                continue
            to_encode = sum(other.tokens for other in encode) + medium.tokens
            if planned + to_encode > self.encoder.capacity or not self.encoder.make_room(to_encode):
                return max(0, medium.offset - computed), encode
            encode.append(medium)
        return new, encode

    def _release_seen(self, sequence: RunningSequence) -> None:
        """Encoder outputs that are computed into the KV cache are needed no longer."""
        media = sequence.job.media
        needed = {medium.key for medium in media if medium.offset + medium.tokens > sequence.computed}
        for medium in media:
            if medium.key not in needed:
                self.encoder.release(sequence, medium.key)

    def _release(self, sequence: RunningSequence) -> None:
        self.kv.release(sequence)
        for medium in sequence.job.media:
            self.encoder.release(sequence, medium.key)
