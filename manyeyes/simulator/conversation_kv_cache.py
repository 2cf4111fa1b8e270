"""The KV cache of a simulation with millions of requests: one entry for all blocks of a conversation.

Counts the same as `KvCache` where each prefix belongs to one conversation and its turns come one after the other: the blocks
of a chain are then used together, given back together (the last one first), and dropped from its end. A conversation costs
100 bytes here, its blocks some 10 KB there. What it cannot count: prefixes that several conversations share.
"""

from collections import OrderedDict
from collections.abc import Sequence as Many

from manyeyes.simulator.block_hash import BLOCK, needed
from manyeyes.simulator.sequence import Sequence


class ChainCache:
    """As `KvCache`; a sequence says in `chain` which conversation it belongs to."""

    prefix_caching = True

    def __init__(self, tokens: int) -> None:
        self.capacity = tokens // BLOCK
        self._empty = self.capacity  # free blocks that hold nothing
        self._idle: OrderedDict[int, int] = OrderedDict()  # free blocks by chain, the longest unused chain first
        self._idle_blocks = 0

    @property
    def free(self) -> int:
        """Blocks that can be had."""
        return self._empty + self._idle_blocks

    @property
    def usage(self) -> float:
        """Share of blocks in use."""
        return 1 - self.free / self.capacity if self.capacity else 0.0

    def find(self, sequence: Sequence) -> Many[int]:
        """The numbers of the blocks from its beginning that are there; never that of its last token."""
        return range(min(self._idle.get(sequence.chain, 0), (sequence.tokens - 1) // BLOCK))

    def admit(self, sequence: Sequence, found: Many[int], tokens: int) -> bool:
        """Hold the blocks that were found, and those for the first `tokens` tokens, if all that is known finds room."""
        if needed(sequence.tokens) > self.free:
            return False
        idle = self._idle.pop(sequence.chain, 0)
        self._idle_blocks -= idle
        self._empty += idle - len(found)
        sequence.full = len(found)
        return self.grow(sequence, tokens)

    def grow(self, sequence: Sequence, tokens: int) -> bool:
        """Hold the blocks for the first `tokens` tokens. False, and nothing changed, when there are too few."""
        more = needed(tokens) - sequence.full - sequence.private
        if more > 0:
            if more > self._empty + self._idle_blocks:
                return False
            self._take(more)
            sequence.private += more
        full = tokens // BLOCK
        if full > sequence.full:
            sequence.private -= full - sequence.full
            sequence.full = full
        return True

    def release(self, sequence: Sequence) -> None:
        """Give back all that a sequence holds; what it computed stays until the room is needed."""
        if sequence.full:
            self._idle[sequence.chain] = sequence.full
            self._idle_blocks += sequence.full
        self._empty += sequence.private
        sequence.private = sequence.full = 0

    def forget(self) -> None:
        """Drop what is cached and not in use."""
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
            there = self._idle[chain]
            if there > blocks:
                self._idle[chain] = there - blocks
                return
            del self._idle[chain]
            blocks -= there
