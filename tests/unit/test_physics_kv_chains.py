"""Chains count what blocks count, as long as every prefix belongs to one conversation."""

from random import Random

import pytest

from manyeyes.simulator.kv_cache import ConversationKvCache, KvCache
from manyeyes.simulator.request import RunningSequence
from tests.unit.emulated import sequence

CONVERSATIONS, CAPACITY = 9, 1_600


def turn(chain: int, prompt: int, answer: int) -> tuple[RunningSequence, RunningSequence]:
    """The same turn for either cache: its tokens begin with those of the turns before it."""
    tokens = [chain * 100_000 + place for place in range(prompt)]
    twins = sequence(tokens, answer), sequence(tokens, answer)
    for twin in twins:
        # The words of an answer are found again in the next prompt.
        later = sequence([chain * 100_000 + place for place in range(prompt + answer)], 0)
        twin.hashes, twin.chain = later.hashes, chain
    return twins


@pytest.mark.parametrize("seed", range(20))
def test_the_same_turns_find_the_same_blocks_and_leave_the_same_room(seed: int) -> None:
    random = Random(seed)
    blocks, chains = KvCache(CAPACITY), ConversationKvCache(CAPACITY)
    names, lengths = {one: one for one in range(CONVERSATIONS)}, dict.fromkeys(range(CONVERSATIONS), 0)
    running: dict[int, tuple[RunningSequence, RunningSequence]] = {}
    for _ in range(400):
        chain = random.randrange(CONVERSATIONS)
        if chain not in running:
            if lengths[chain] > 500:  # another conversation takes its place
                names[chain], lengths[chain] = names[chain] + CONVERSATIONS, 0
            lengths[chain] += random.randint(8, 90)
            one, other = turn(names[chain], lengths[chain], random.randint(1, 60))
            found, numbers = blocks.find(one), chains.find(other)
            assert len(numbers) == len(found)
            tokens = random.randint(len(found) * 16 + 1, one.tokens)
            let_in = blocks.admit(one, found, tokens)
            assert chains.admit(other, numbers, tokens) is let_in
            if let_in:
                one.computed = other.computed = tokens
                running[chain] = one, other
        else:
            one, other = running[chain]
            more = one.computed + random.randint(1, 20)
            if random.random() < 0.4 or more >= one.tokens + len(one.job.answer):
                lengths[chain] = max(one.tokens, one.computed)
                blocks.release(one)
                chains.release(other)
                del running[chain]
            else:
                grown = blocks.grow(one, more)
                assert chains.grow(other, more) is grown
                if grown:
                    one.computed = other.computed = more
        assert chains.free == blocks.free
        assert chains.usage == blocks.usage


def test_of_the_longest_unused_conversation_the_last_blocks_go_first() -> None:
    chains = ConversationKvCache(20 * 16)
    for chain in (1, 2):
        _, one = turn(chain, 160, 16)
        assert chains.admit(one, [], 160)
        chains.release(one)
    _, third = turn(3, 64, 1)
    assert chains.admit(third, [], 64)
    assert [len(chains.find(turn(chain, 500, 1)[1])) for chain in (1, 2)] == [6, 10]


def test_a_sequence_that_does_not_fit_is_not_let_in_and_nothing_changes() -> None:
    chains = ConversationKvCache(160)
    _, one = turn(1, 161, 1)
    assert not chains.admit(one, [], 16)
    assert chains.free == 10


def test_forgetting_empties_what_nobody_uses() -> None:
    chains = ConversationKvCache(160)
    _, one = turn(1, 100, 1)
    assert chains.admit(one, [], 100)
    chains.release(one)
    chains.forget()
    assert chains.free == 10
    assert len(chains.find(turn(1, 100, 1)[1])) == 0
