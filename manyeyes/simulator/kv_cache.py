"""The KV cache: which blocks are in use, and which unused ones still hold a prefix that may be asked for again.

After vLLM (vllm/v1/core/kv_cache_manager.py, block_pool.py): blocks that hold nothing are taken first, then the cached
ones that nobody has used for longest; of one sequence the last block goes before the first. One difference: a block
that two sequences computed at the same time is remembered once.
"""

from collections import OrderedDict
from collections.abc import Sequence as Many

from manyeyes.simulator.block_hash import BLOCK, needed
from manyeyes.simulator.sequence import Sequence


class KvCache:
    """Counts blocks; there is nothing in them."""

    def __init__(self, tokens: int, *, prefix_caching: bool = True) -> None:
        self.capacity = tokens // BLOCK
        self.prefix_caching = prefix_caching
        self._empty = self.capacity  # free blocks that hold nothing
        self._idle: OrderedDict[int, None] = OrderedDict()  # free blocks by hash, the longest unused first
        self._users: dict[int, int] = {}  # sequences that hold a block, by its hash

    @property
    def free(self) -> int:
        """Blocks that can be had."""
        return self._empty + len(self._idle)

    @property
    def usage(self) -> float:
        """Share of blocks in use."""
        return 1 - self.free / self.capacity if self.capacity else 0.0

    def find(self, sequence: Sequence) -> list[int]:
        """The blocks from its beginning that are there. The last token is always computed, so never all of it."""
        if not self.prefix_caching:
            return []
        most = (sequence.tokens - 1) // BLOCK
        for number, block in enumerate(sequence.hashes[:most]):
            if block not in self._users and block not in self._idle:
                return sequence.hashes[:number]
        return sequence.hashes[:most]

    def admit(self, sequence: Sequence, found: Many[int], tokens: int) -> bool:
        """Hold the blocks that were found, and those for the first `tokens` tokens.

        False, and nothing held, unless there is room for all that is known of the sequence, as in vLLM
        (`scheduler_reserve_full_isl`).
        """
        in_use = sum(block in self._users for block in found)
        if needed(sequence.tokens) - in_use > self.free:
            return False
        for block in found:
            self._hold(sequence, block)
        sequence.full = len(found)
        return self.grow(sequence, tokens)

    def grow(self, sequence: Sequence, tokens: int) -> bool:
        """Hold the blocks for the first `tokens` tokens. False, and nothing changed, when there are too few."""
        more = needed(tokens) - len(sequence.held) - sequence.private
        if more > 0:
            if more > self.free:
                return False
            self._take(more)
            sequence.private += more
        if self.prefix_caching and tokens // BLOCK > sequence.full:
            self._remember(sequence, tokens // BLOCK)
        return True

    def release(self, sequence: Sequence) -> None:
        """Give back all that a sequence holds; what it computed stays until the room is needed."""
        for block in reversed(sequence.held):
            self._users[block] -= 1
            if not self._users[block]:
                del self._users[block]
                self._idle[block] = None
        self._empty += sequence.private
        sequence.held.clear()
        sequence.private = sequence.full = 0

    def forget(self) -> None:
        """Drop what is cached and not in use."""
        self._empty += len(self._idle)
        self._idle.clear()

    def _take(self, blocks: int) -> None:
        empty = min(blocks, self._empty)
        self._empty -= empty
        for _ in range(blocks - empty):
            self._idle.popitem(last=False)

    def _hold(self, sequence: Sequence, block: int) -> None:
        self._idle.pop(block, None)
        self._users[block] = self._users.get(block, 0) + 1
        sequence.held.append(block)

    def _remember(self, sequence: Sequence, full: int) -> None:
        """Make its blocks up to number `full` known to others. vLLM does so before they are computed."""
        for block in sequence.hashes[sequence.full : full]:
            if block in self._users:
                continue
            if block in self._idle:  # computed again because its last token was needed
                self._idle.move_to_end(block)
                continue
            self._hold(sequence, block)
            sequence.private -= 1
        sequence.full = full
