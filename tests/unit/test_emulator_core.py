import pytest

from manyeyes.emulator.cli import ConstantTimes
from manyeyes.emulator.constant_latency_core import ConstantLatencyCore
from manyeyes.simulator import profile
from manyeyes.simulator.core import BatchedCore, EngineCore, iteration_s
from manyeyes.simulator.profile import TimingProfile
from manyeyes.simulator.scheduler import ScheduledBatch
from tests.unit.emulated import scheduler, sequence

# An iteration takes 10 ms, and 1 ms more for each prompt token.
PROFILE = TimingProfile("gpu", "model", 1, 0, 0, 0, 0, 0, 0, 10.0, 1000.0, 0, 0, 0, 0, 0, 0)


def batched() -> BatchedCore:
    return BatchedCore(scheduler(), PROFILE)


def constant(seats: int = 2) -> ConstantLatencyCore:
    return ConstantLatencyCore(ConstantTimes(first_token_s=0.1, medium_s=0.05, token_s=0.01), seats, 1000)


def times(core: EngineCore) -> list[tuple[float, int]]:
    """When how many sequences got a token, until there is nothing to do; the core is told the time it asks for."""
    found = []
    while core.next_at is not None:
        found += [(round(step.at, 6), len(step.produced)) for step in core.advance(core.next_at)]
    return found


def test_the_terms_of_an_iteration_add_up() -> None:
    whole = TimingProfile("gpu", "model", 1, 0, 0, 0, 0, 0, 0, 7.0, 50.0, 40.0, 100.0, 4.0, 60.0, 0, 0)
    batch = ScheduledBatch(prefill_tokens=1000, decode_sequences=10, context_tokens=20_000, encoded=[500, 300])
    assert iteration_s(batch, whole) == pytest.approx(0.007 + 0.050 + 0.0004 + 0.002 + 0.008 + 0.048)


def test_a_lone_sequence_gets_its_tokens_one_iteration_apart() -> None:
    core = batched()
    core.add(sequence(20, answer=3), now=5.0)
    assert times(core) == [(5.03, 1), (5.04, 1), (5.05, 1)]


def test_who_comes_during_an_iteration_waits_for_its_end_and_slows_the_others() -> None:
    core = batched()
    core.add(sequence(20, answer=3), now=0.0)
    core.advance(0.0)
    core.add(sequence(20, answer=2, start=900), now=0.01)
    assert times(core) == [(0.03, 1), (0.06, 2), (0.07, 2)]


def test_a_process_that_wakes_late_loses_no_time_of_the_gpu() -> None:
    core = batched()
    core.add(sequence(20, answer=3), now=0.0)
    core.advance(0.0)
    assert [round(step.at, 6) for step in core.advance(0.5)] == [0.03, 0.04, 0.05]


def test_a_process_that_stood_still_goes_on_from_there() -> None:
    core = batched()
    core.add(sequence(20, answer=3), now=0.0)
    core.advance(0.0)
    assert [step.at for step in core.advance(100.0)] == [100.0]
    assert core.next_at == pytest.approx(100.01)


def test_an_engine_with_nothing_to_do_asks_for_nothing() -> None:
    for core in (batched(), constant()):
        assert core.next_at is None
        core.add(one := sequence(20), now=0.0)
        assert core.next_at is not None
        core.advance(core.next_at)
        one.ended = True
        core.remove(one)
        times(core)
        assert core.next_at is None


def test_who_is_given_up_while_it_runs_gets_no_more_tokens() -> None:
    core = batched()
    core.add(one := sequence(20, answer=3), now=0.0)
    core.add(sequence(20, answer=3, start=900), now=0.0)
    core.advance(0.0)
    one.ended = True
    core.remove(one)
    assert [count for _, count in times(core)] == [1, 1, 1]


def test_a_paused_engine_computes_nothing_and_goes_on_when_it_is_resumed() -> None:
    for core in (batched(), constant()):
        core.add(one := sequence(20, answer=3), now=0.0)
        core.advance(0.0)
        core.pause(new_only=False)
        times(core)
        assert one.generated < 3
        core.resume(now=9.0)
        assert times(core)
        assert one.ended


def test_a_slow_engine_takes_longer() -> None:
    core = batched()
    core.slowness = 3.0
    core.add(sequence(20, answer=2), now=0.0)
    assert times(core) == [(0.09, 1), (0.12, 1)]


def test_constant_times_do_not_depend_on_how_many_run() -> None:
    core = constant()
    for start in (0, 100, 200):
        core.add(sequence(10, answer=2, start=start), now=0.0)
    # two seats: the third one begins when they are free
    assert times(core) == [(0.1, 1), (0.1, 1), (0.11, 1), (0.11, 1), (0.21, 1), (0.22, 1)]


def test_a_seat_that_is_given_up_goes_to_the_next() -> None:
    core = constant(seats=1)
    first, second = sequence(10), sequence(10, start=100, answer=1)
    core.add(first, now=0.0)
    core.add(second, now=0.0)
    first.ended = True
    core.remove(first)
    core.advance(1.0)
    assert times(core) == [(1.1, 1)]


@pytest.mark.parametrize("name", profile.profile_names())
def test_every_profile_can_be_read(name: str) -> None:
    loaded = profile.load_profile(name)
    assert loaded.kv_cache_tokens > 8192
    assert loaded.faster(2).iteration_ms == loaded.iteration_ms / 2
    assert loaded.faster(2).kv_cache_tokens == loaded.kv_cache_tokens


@pytest.mark.parametrize("name", profile.profile_names())
def test_every_number_of_a_profile_names_its_source(name: str) -> None:
    above = ""
    for line in (profile.PROFILE_FOLDER / f"{name}.yaml").read_text().splitlines():
        if line.startswith("#"):
            above += line
        elif not line.startswith(("gpu:", "model:")):
            said = above + line.partition("#")[2]
            assert any(word in said for word in ("estimate", "issue", "pull request", "blog", "arithmetic")), line
            above = ""


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ("", "expected lines of `name: value`"),
        ({"gpu": "x"}, "missing or unknown: cached_item_ms"),
        ({**vars(PROFILE), "speed": 1}, "missing or unknown: speed"),
        ({**vars(PROFILE), "wake_s": -1}, "wake_s: expected a number of at least 0, got -1"),
        ({**vars(PROFILE), "gpu": 4090}, "gpu: expected a text, got 4090"),
    ],
)
def test_a_wrong_profile_is_refused_with_its_reason(document: object, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        profile.parse_profile(document, "file.yaml")


def test_an_unknown_profile_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(ValueError, match=r"known profiles: .*rtx4090-qwen3-vl-4b-fp8"):
        profile.load_profile("no-such-gpu")


def test_each_token_is_told_with_its_number_however_many_come_at_once() -> None:
    for core in (batched(), constant()):
        core.add(sequence(20, answer=3), now=0.0)
        core.advance(0.0)
        assert [number for step in core.advance(0.9) for _, number in step.produced] == [1, 2, 3]
