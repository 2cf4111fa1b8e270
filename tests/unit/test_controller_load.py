"""What is read of an engine's metrics and /load, and what is made of it."""

from manyeyes.controller.health.vllm_metrics import EngineLoad, Loads, read
from manyeyes.emulator.metrics import Metrics

VLLM = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a b} c"} 3.0
vllm:num_requests_running{engine="1",model_name="a b} c"} 2.0
vllm:num_requests_waiting{engine="0",model_name="m"} 7.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 99.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.75
vllm:engine_sleep_state{engine="0",model_name="m",sleep_state="awake"} 1.0
vllm:engine_sleep_state{engine="0",model_name="m",sleep_state="weights_offloaded"} 0.0
vllm:generation_tokens_total{engine="0",model_name="m"} 1.234e+06
vllm:generation_tokens_created{engine="0",model_name="m"} 1.7e9
vllm:prompt_tokens_total{engine="0",model_name="m"} 55.0
vllm:num_preemptions_total{engine="0",model_name="m"} 4.0
vllm:iteration_tokens_total_bucket{engine="0",le="1.0",model_name="m"} 1.0
vllm:iteration_tokens_total_count{engine="0",model_name="m"} 17.0
vllm:request_queue_time_seconds_count{engine="0",model_name="m"} 6.0
vllm:request_queue_time_seconds_sum{engine="0",model_name="m"} 1.5
"""


def loads(text: bytes = VLLM, server_load: int | None = None, at_s: float = 1.0, of: Loads | None = None) -> EngineLoad:
    of = of or Loads()
    counters = read(text, of.places)
    assert counters
    return of.take(at_s, counters, server_load)


def test_the_few_numbers_are_found_and_ranks_are_added_up() -> None:
    assert loads() == EngineLoad(
        at_s=1.0,
        in_flight=12,
        running=5,
        waiting=7,
        kv_cache_share=0.5,
        generation_tokens_total=1_234_000,
        prompt_tokens_total=55,
        preemptions_total=4,
        iterations_total=17,
        queue_s_total=1.5,
        queue_requests_total=6,
    )


def test_the_emulators_metrics_are_read_as_vllms() -> None:
    metrics = Metrics("m")
    metrics.watch(lambda: 2, lambda: 3, lambda: 0.5)
    metrics.generation_tokens.inc(9)
    load = loads(metrics.text())
    assert (load.running, load.waiting, load.kv_cache_share, load.generation_tokens_total) == (2, 3, 0.5, 9)


def test_sleep_is_read() -> None:
    metrics = Metrics("m")
    assert read(metrics.text(), {}).asleep is False  # type: ignore[union-attr]
    metrics.show_sleep(1)
    assert read(metrics.text(), {}).asleep is True  # type: ignore[union-attr]


def test_what_is_not_vllms_is_nothing() -> None:
    for text in (b"", b"<html>", b"# HELP x\nx 1\n", b"\xff" * 1000, b"\nvllm:num_requests_running{} x\n"):
        assert read(text, {}) is None


def test_lines_that_moved_are_found_again() -> None:
    of = Loads()
    first = loads(of=of)
    shifted = b"# another\n" * 2000 + VLLM
    assert loads(shifted, of=of, at_s=2.0).generation_tokens_total == first.generation_tokens_total
    assert of.last is not None
    assert of.last.tokens_per_s == 0
    assert loads(VLLM.replace(b"1.234e+06", b"1.2341e+06"), of=of, at_s=4.0).tokens_per_s == 50


def test_the_hidden_queue_is_what_neither_runs_nor_waits() -> None:
    assert loads(server_load=20).hidden_queue == 8
    assert loads(server_load=None).hidden_queue == 0


def test_a_process_that_does_not_count_its_load_is_believed_about_what_runs_and_waits() -> None:
    assert loads(server_load=0).in_flight == 12
    assert loads(server_load=0).hidden_queue == 0


IDLE = VLLM.replace(b"} 3.0", b"} 0.0").replace(b"} 2.0", b"} 0.0").replace(b"} 7.0", b"} 0.0")


def test_a_load_that_drifted_below_zero_is_set_right() -> None:
    of = Loads()
    loads(IDLE, -2, of=of)
    assert loads(IDLE, -2, at_s=2.0, of=of).in_flight == 0
    assert loads(VLLM, 12, at_s=3.0, of=of).in_flight == 14  # 12 counted from -2


def test_a_load_that_stays_while_an_engine_rests_is_its_new_zero_after_a_minute() -> None:
    of = Loads()
    assert loads(IDLE, 3, of=of).in_flight == 3
    assert loads(IDLE, 3, at_s=30.0, of=of).in_flight == 3  # it may be preparing a long video
    loads(IDLE, 3, at_s=60.0, of=of)
    assert loads(IDLE, 3, at_s=95.0, of=of).in_flight == 0
    assert loads(IDLE, 5, at_s=96.0, of=of).in_flight == 2


def test_progress_is_tokens_and_steps_and_not_requests_that_end() -> None:
    before = EngineLoad(1.0, 5, running=5, generation_tokens_total=9)
    assert not EngineLoad(2.0, 0, running=0, generation_tokens_total=9).progressed_since(before)
    assert EngineLoad(2.0, 5, running=5, generation_tokens_total=10).progressed_since(before)
    assert EngineLoad(2.0, 0).progressed_since(before)  # a new process
