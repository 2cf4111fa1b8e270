from manyeyes.simulator import kv_cache
from manyeyes.simulator.kv_cache import KvCache
from manyeyes.simulator.request import RunningSequence
from tests.unit.emulated import sequence


def run(kv: KvCache, one: RunningSequence) -> int:
    """Hold all of it, and give it back. Says how many of its tokens were found."""
    found = kv.find(one)
    assert kv.admit(one, found, one.tokens)
    kv.release(one)
    return len(found) * kv_cache.BLOCK


def test_equal_beginnings_have_equal_hashes_up_to_the_block_that_differs() -> None:
    one, other = kv_cache.block_hashes(list(range(64))), kv_cache.block_hashes([*range(40), 999, *range(41, 64)])
    assert one[:2] == other[:2]
    assert not set(one[2:]) & set(other)


def test_only_full_blocks_have_a_hash() -> None:
    assert [len(kv_cache.block_hashes([0] * n)) for n in (0, 15, 16, 31, 32)] == [0, 0, 1, 1, 2]


def test_a_prompt_is_found_again_up_to_its_last_full_block() -> None:
    kv = KvCache(1600)
    assert run(kv, sequence(100)) == 0
    assert run(kv, sequence(100)) == 96


def test_the_last_token_is_always_computed_even_when_every_block_is_there() -> None:
    kv = KvCache(1600)
    assert run(kv, sequence(96)) == 0
    assert run(kv, sequence(96)) == 80


def test_a_running_sequence_shares_its_blocks_at_once() -> None:
    kv = KvCache(1600)
    one, other = sequence(100), sequence(100)
    assert kv.admit(one, kv.find(one), 100)
    assert kv.admit(other, kv.find(other), 100)
    assert kv.free == 100 - 7 - 1  # six shared, and the last of each


def test_the_longest_unused_blocks_go_first_and_of_one_sequence_the_last() -> None:
    kv = KvCache(160)
    run(kv, sequence(64, start=0))
    run(kv, sequence(64, start=1000))
    run(kv, sequence(48, start=2000))  # two blocks hold nothing, so one cached one has to go
    assert len(kv.find(sequence(65, start=0))) == 3
    assert len(kv.find(sequence(65, start=1000))) == 4


def test_a_found_block_is_young_again() -> None:
    kv = KvCache(160)
    run(kv, sequence(64, start=0))
    run(kv, sequence(64, start=1000))
    run(kv, sequence(65, start=0))
    run(kv, sequence(64, start=2000))
    assert len(kv.find(sequence(65, start=0))) == 4
    assert len(kv.find(sequence(65, start=1000))) < 4


def test_a_sequence_is_admitted_only_when_all_that_is_known_of_it_fits() -> None:
    kv = KvCache(160)
    one, other = sequence(100), sequence(80, start=1000)
    assert kv.admit(one, [], 16)
    assert kv.grow(one, 100)
    assert not kv.admit(other, [], 16)
    assert other.cached_blocks == []
    kv.release(one)
    assert kv.admit(other, [], 16)


def test_what_is_given_back_can_all_be_had_again() -> None:
    kv = KvCache(160)
    for start in range(0, 10_000, 500):
        run(kv, sequence(150, start=start))
        assert kv.free == kv.capacity == 10
        assert kv.usage == 0.0


def test_without_prefix_caching_nothing_is_found() -> None:
    kv = KvCache(1600, prefix_caching=False)
    run(kv, sequence(100))
    assert run(kv, sequence(100)) == 0


def test_a_cache_that_forgets_finds_nothing_and_has_all_its_room() -> None:
    kv = KvCache(160)
    run(kv, sequence(100))
    kv.forget()
    assert kv.find(sequence(100)) == []
    assert kv.free == 10
