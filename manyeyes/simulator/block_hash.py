"""Hashes of blocks: equal for two sequences as long as everything up to the end of the block is equal.

As in vLLM (vllm/v1/core/kv_cache_utils.py): a block's hash is that of the hash before it and of its own tokens, and a
place of a picture counts with the picture's own hash.
"""

BLOCK = 16  # tokens; vLLM's default


def hashes(tokens: list[int]) -> list[int]:
    """One for each full block."""
    found, last = [], 0
    for at in range(0, len(tokens) - BLOCK + 1, BLOCK):
        last = hash((last, *tokens[at : at + BLOCK]))
        found.append(last)
    return found


def needed(tokens: int) -> int:
    """Blocks that hold so many tokens."""
    return -(-tokens // BLOCK)
