from manyeyes.simulator.request import RunningSequence
from manyeyes.simulator.scheduler import ScheduledBatch, Scheduler
from tests.unit.emulated import medium, scheduler, sequence


def queue(work: Scheduler, *sequences: RunningSequence) -> None:
    work.waiting.extend(sequences)


def step(work: Scheduler) -> ScheduledBatch:
    """One iteration, from its plan to its end."""
    batch = work.schedule(0.0)
    work.finish(batch)
    return batch


def run_out(work: Scheduler) -> list[ScheduledBatch]:
    """Iterations until nothing is left to do."""
    batches = []
    while (batch := step(work)).sequences:
        batches.append(batch)
        assert len(batches) < 10_000
    return batches


def test_a_prompt_and_its_answer_take_one_iteration_a_token() -> None:
    work = scheduler()
    one = sequence(100, answer=5)
    queue(work, one)
    batches = run_out(work)
    assert [batch.prefill_tokens for batch in batches] == [100, 0, 0, 0, 0]
    assert [batch.decode_sequences for batch in batches] == [0, 1, 1, 1, 1]
    assert batches[1].context_tokens == 100
    assert one.ended
    assert one.generated == 5
    assert not work.running
    assert work.kv.usage == 0.0


def test_a_long_prompt_is_computed_in_pieces_beside_the_tokens_of_others() -> None:
    work = scheduler(budget=64)
    queue(work, first := sequence(20, answer=9))
    step(work)
    queue(work, sequence(150, start=1000))
    batches = [step(work) for _ in range(4)]
    assert [batch.prefill_tokens for batch in batches] == [63, 63, 24, 0]
    assert [batch.decode_sequences for batch in batches] == [1, 1, 1, 2]
    assert first.generated == 5


def test_those_that_answer_come_before_new_prompts_and_prompts_in_the_order_they_came() -> None:
    work = scheduler(budget=64)
    queue(work, *(sequence(60, start=1000 * n) for n in range(3)))
    assert [batch.prefill_tokens for batch in (step(work), step(work), step(work))] == [64, 63, 53]


def test_no_more_run_at_once_than_there_are_seats() -> None:
    work = scheduler(seats=2)
    queue(work, *(sequence(10, start=100 * n) for n in range(5)))
    assert len(step(work).sequences) == 2
    assert len(work.waiting) == 3


def test_a_second_turn_finds_the_first_one_and_its_answer() -> None:
    work = scheduler()
    queue(work, sequence(100, answer=30))
    run_out(work)
    turn = sequence([*range(100), *range(-1, -31, -1), 7, 7, 7], answer=2)
    queue(work, turn)
    batch = step(work)
    assert turn.cached == batch.cached_tokens == 128  # 129 of the 130 tokens were computed: the last one never is
    assert batch.queried == 133
    assert batch.prefill_tokens == 5


def test_a_sequence_that_begins_beside_its_twin_finds_the_blocks_that_are_being_computed() -> None:
    work = scheduler()
    queue(work, sequence(100), twin := sequence(100))
    assert step(work).prefill_tokens == 100 + 4
    assert twin.cached == 96


def test_when_blocks_run_out_the_youngest_is_put_back_and_computed_again() -> None:
    work = scheduler(kv_tokens=160)
    one, other = sequence(70, answer=40), sequence(60, answer=40, start=1000)
    queue(work, one, other)
    batches = run_out(work)
    assert sum(batch.preempted for batch in batches) == other.preemptions == 1
    assert one.preemptions == 0
    assert (one.generated, other.generated) == (40, 40)
    assert sum(batch.queried for batch in batches) == 130  # a preempted sequence is not counted twice
    assert work.kv.free == 10


def test_a_picture_is_encoded_once_while_its_output_is_kept() -> None:
    work = scheduler()
    picture = medium(7, tokens=100, offset=3)
    queue(work, sequence(120, media=(picture,)))
    assert run_out(work)[0].encoded == [100]
    queue(work, sequence(130, media=(picture,), start=9000))  # another text before it: the prefix cache does not help
    assert run_out(work)[0].encoded == []


def test_a_picture_twice_in_one_prompt_is_encoded_once() -> None:
    work = scheduler()
    queue(work, sequence(220, media=(medium(7, 100, 3), medium(7, 100, 110))))
    assert run_out(work)[0].encoded == [100]


def test_a_picture_that_the_prefix_cache_covers_is_not_encoded() -> None:
    work = scheduler(encoder_tokens=100)
    queue(work, sequence(120, media=(medium(7, 100, 3),)))
    run_out(work)
    queue(work, sequence(150, media=(medium(8, 100, 3),), start=5000))
    run_out(work)  # pushes the first picture out of the encoder cache
    queue(work, sequence(120, media=(medium(7, 100, 3),)))
    assert run_out(work)[0].encoded == []


def test_the_encoder_takes_no_more_vision_tokens_at_once_than_its_budget() -> None:
    work = scheduler(encoder_tokens=150)
    queue(work, one := sequence(230, media=(medium(7, 100, 3), medium(8, 100, 110))))
    batches = run_out(work)
    assert [batch.encoded for batch in batches[:2]] == [[100], [100]]
    assert [batch.prefill_tokens for batch in batches[:2]] == [110, 120]
    assert one.ended


def test_a_picture_stays_while_a_long_prompt_still_needs_it() -> None:
    work = scheduler(budget=64, encoder_tokens=128)
    queue(work, sequence(150, media=(medium(7, 128, 3),)))
    assert [batch.encoded for batch in run_out(work)[:3]] == [[128], [], []]


def test_a_sequence_that_is_given_up_frees_everything() -> None:
    work = scheduler(kv_tokens=160, encoder_tokens=100)
    queue(work, one := sequence(120, media=(medium(7, 100, 3),)))
    batch = work.schedule(0.0)
    one.ended = True
    work.remove(one)
    assert work.finish(batch) == []
    assert work.kv.free == 10
    assert work.encoder.make_room(100)


def test_while_paused_nobody_is_admitted() -> None:
    work = scheduler()
    work.admits = False
    queue(work, sequence(10))
    assert step(work).sequences == []
