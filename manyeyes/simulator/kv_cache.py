"""The KV cache: which blocks are in use, and which unused blocks contain a prefix that may be reused.

It follows vLLM (vllm/v1/core/kv_cache_manager.py, block_pool.py): empty blocks are used first, then the least recently used
cached blocks; of one sequence, the last block is evicted before the first. One difference: a block that two sequences
computed at the same time is cached once. `ConversationKvCache` is for simulations with millions of requests: it has one
entry for all blocks of a conversation.
"""

from collections import OrderedDict
from collections.abc import Sequence

from manyeyes.simulator.request import RunningSequence

BLOCK = 16  # tokens; vLLM's default


def block_hashes(tokens: list[int], salt: str = "") -> list[int]:
    """One hash for each full block. Requests with different salts share no block."""
    hashes, previous = [], hash(salt) if salt else 0
    for at in range(0, len(tokens) - BLOCK + 1, BLOCK):
        previous = hash((previous, *tokens[at : at + BLOCK]))
        hashes.append(previous)
    return hashes


def blocks_needed(tokens: int) -> int:
    return -(-tokens // BLOCK)


class KvCache:
    """Counts blocks without storing data."""

    def __init__(self, tokens: int, *, prefix_caching: bool = True) -> None:
        self.capacity = tokens // BLOCK
        self.prefix_caching = prefix_caching
        self._empty = self.capacity  # free blocks without cached content
        self._idle: OrderedDict[int, None] = OrderedDict()  # free blocks by hash, the longest unused first
        self._users: dict[int, int] = {}  # number of sequences that use a block, by its hash

    @property
    def free(self) -> int:
        """Number of blocks that can be allocated."""
        return self._empty + len(self._idle)

    @property
    def usage(self) -> float:
        """Fraction of blocks in use."""
        return 1 - self.free / self.capacity if self.capacity else 0.0

    def find(self, sequence: RunningSequence) -> list[int]:
        """Return the cached blocks at its beginning. The last token is always computed, so they never cover all of it."""
        if not self.prefix_caching:
            return []
        max_blocks = (sequence.tokens - 1) // BLOCK
        for number, block in enumerate(sequence.hashes[:max_blocks]):
            if block not in self._users and block not in self._idle:
                return sequence.hashes[:number]
        return sequence.hashes[:max_blocks]

    def admit(self, sequence: RunningSequence, cached_blocks: Sequence[int], tokens: int) -> bool:
        """Allocate the blocks that were found, and the blocks for the first `tokens` tokens.

        Returns False and allocates nothing unless all known tokens of the sequence fit, as in vLLM
        (`scheduler_reserve_full_isl`).
        """
        in_use = sum(block in self._users for block in cached_blocks)
        if blocks_needed(sequence.tokens) - in_use > self.free:
            return False
        for block in cached_blocks:
            self._use_block(sequence, block)
        sequence.full = len(cached_blocks)
        return self.grow(sequence, tokens)

    def grow(self, sequence: RunningSequence, tokens: int) -> bool:
        """Allocate the blocks for the first `tokens` tokens. Returns False and changes nothing if there are too few."""
        missing = blocks_needed(tokens) - len(sequence.cached_blocks) - sequence.private
        if missing > 0:
            if missing > self.free:
                return False
            self._take(missing)
            sequence.private += missing
        if self.prefix_caching and tokens // BLOCK > sequence.full:
            self._cache_blocks(sequence, tokens // BLOCK)
        return True

    def release(self, sequence: RunningSequence) -> None:
        """Release all blocks of a sequence. Their content stays cached until the space is needed."""
        for block in reversed(sequence.cached_blocks):
            self._users[block] -= 1
            if not self._users[block]:
                del self._users[block]
                self._idle[block] = None
        self._empty += sequence.private
        sequence.cached_blocks.clear()
        sequence.private = sequence.full = 0

    def forget(self) -> None:
        """Discard all cached blocks that are not in use."""
        self._empty += len(self._idle)
        self._idle.clear()

    def _take(self, blocks: int) -> None:
        empty = min(blocks, self._empty)
        self._empty -= empty
        for _ in range(blocks - empty):
            self._idle.popitem(last=False)

    def _use_block(self, sequence: RunningSequence, block: int) -> None:
        self._idle.pop(block, None)
        self._users[block] = self._users.get(block, 0) + 1
        sequence.cached_blocks.append(block)

    def _cache_blocks(self, sequence: RunningSequence, full: int) -> None:
        """Add its blocks up to number `full` to the prefix cache. vLLM does so before they are computed."""
        for block in sequence.hashes[sequence.full : full]:
            if block in self._users:
                continue
            if block in self._idle:  # computed again because its last token was needed
                self._idle.move_to_end(block)
                continue
            self._use_block(sequence, block)
            sequence.private -= 1
        sequence.full = full


class ConversationKvCache:
    """Like `KvCache`, but the attribute `chain` of a sequence identifies its conversation."""

    prefix_caching = True

    def __init__(self, tokens: int) -> None:
        self.capacity = tokens // BLOCK
        self._empty = self.capacity  # free blocks without cached content
        self._idle: OrderedDict[int, int] = OrderedDict()  # free blocks by chain, the longest unused chain first
        self._idle_blocks = 0

    @property
    def free(self) -> int:
        """Number of blocks that can be allocated."""
        return self._empty + self._idle_blocks

    @property
    def usage(self) -> float:
        """Fraction of blocks in use."""
        return 1 - self.free / self.capacity if self.capacity else 0.0

    def find(self, sequence: RunningSequence) -> Sequence[int]:
        """Return the numbers of the cached blocks at its beginning, without the block of its last token."""
        return range(min(self._idle.get(sequence.chain, 0), (sequence.tokens - 1) // BLOCK))

    def admit(self, sequence: RunningSequence, cached_blocks: Sequence[int], tokens: int) -> bool:
        """Allocate the blocks that were found, and the blocks for the first `tokens` tokens, if all known tokens fit."""
        if blocks_needed(sequence.tokens) > self.free:
            return False
        idle_blocks = self._idle.pop(sequence.chain, 0)
        self._idle_blocks -= idle_blocks
        self._empty += idle_blocks - len(cached_blocks)
        sequence.full = len(cached_blocks)
        return self.grow(sequence, tokens)

    def grow(self, sequence: RunningSequence, tokens: int) -> bool:
        """Allocate the blocks for the first `tokens` tokens. Returns False and changes nothing if there are too few."""
        missing = blocks_needed(tokens) - sequence.full - sequence.private
        if missing > 0:
            if missing > self._empty + self._idle_blocks:
                return False
            self._take(missing)
            sequence.private += missing
        full = tokens // BLOCK
        if full > sequence.full:
            sequence.private -= full - sequence.full
            sequence.full = full
        return True

    def release(self, sequence: RunningSequence) -> None:
        """Release all blocks of a sequence. Their content stays cached until the space is needed."""
        if sequence.full:
            self._idle[sequence.chain] = sequence.full
            self._idle_blocks += sequence.full
        self._empty += sequence.private
        sequence.private = sequence.full = 0

    def forget(self) -> None:
        """Discard all cached blocks that are not in use."""
        self._empty += self._idle_blocks
        self._idle_blocks = 0
        self._idle.clear()

    def _take(self, blocks: int) -> None:
        empty = min(blocks, self._empty)
        self._empty -= empty
        blocks -= empty
        self._idle_blocks -= blocks
        while blocks:
            chain = next(iter(self._idle))
            count = self._idle[chain]
            if count > blocks:
                self._idle[chain] = count - blocks
                return
            del self._idle[chain]
            blocks -= count
