"""From times to a profile's numbers."""

from dataclasses import replace
from random import Random

import pytest
import yaml

from manyeyes.calibration.engine import TimedAnswer
from manyeyes.calibration.measure import SIZES, Measurement, token_s
from manyeyes.calibration.profile_fit import fit_non_negative, fit_profile, profile_yaml
from manyeyes.simulator import profile
from manyeyes.simulator.core import encoding_s, iteration_s
from manyeyes.simulator.profile import TimingProfile
from manyeyes.simulator.scheduler import ScheduledBatch

BASE = profile.load_profile("rtx4090-qwen3-vl-4b-fp8")
TRUE = replace(BASE, prefill_pair_ns=20.0, encode_pair_ns=300.0, tokens_per_word=1.4, health_ms=3.0)
FITTED = (
    *("render_ms", "decode_ms", "preprocess_item_ms", "preprocess_ms", "cached_item_ms", "iteration_ms", "prefill_us"),
    *("prefill_pair_ns", "decode_us", "context_ns", "encode_item_ms", "encode_us", "encode_pair_ns", "tokens_per_word"),
)


def first_s(
    p: TimingProfile, tokens: int, megapixels: float = 0.0, *, decoded: bool, pre_s: float, vision: int
) -> float:
    batch = ScheduledBatch(
        prefill_tokens=tokens, prefill_pairs=tokens * tokens // 2, encoded=[vision] if vision else []
    )
    return p.render_ms / 1e3 + decoded * p.decode_ms * megapixels / 1e3 + pre_s + iteration_s(batch, p)


def measured(p: TimingProfile, noise: float = 0.0) -> list[Measurement]:
    """What an engine with that profile would show."""
    random = Random(1)

    def times(value: float) -> tuple[float, ...]:
        return tuple(value * (1 + noise * random.random()) for _ in range(7))

    seen = []
    for words in (8, 100, 300, 800, 1600):
        tokens = round(24 + words * p.tokens_per_word)
        seconds = first_s(p, tokens, decoded=False, pre_s=0.0, vision=0)
        seen.append(Measurement("text", {"words": words, "tokens": tokens}, times(seconds)))
    for requests, context in ((1, 50), (2, 100), (4, 200), (8, 400), (16, 800), (1, 1100), (4, 4400)):
        seconds = iteration_s(ScheduledBatch(decode_sequences=requests, context_tokens=context), p)
        seen.append(Measurement("decode", {"requests": requests, "context": context}, times(seconds)))
    for width, height in SIZES:
        mp, vision = width * height / 1e6, width * height // 1024
        tokens = vision + 40
        pre, known = (p.preprocess_item_ms + p.preprocess_ms * mp) / 1e3, p.cached_item_ms / 1e3
        x = {"megapixels": mp, "tokens": float(tokens)}
        seen.append(Measurement("fresh", x, times(first_s(p, tokens, mp, decoded=True, pre_s=pre, vision=vision))))
        seen.append(
            Measurement("remembered", x, times(first_s(p, tokens, mp, decoded=True, pre_s=known, vision=vision)))
        )
        seen.append(Measurement("known", x, times(first_s(p, tokens, mp, decoded=True, pre_s=known, vision=0))))
    seen.append(Measurement("health", {"megapixels": 0.5, "requests": 6.0}, times(6 * p.health_ms / 1e3)))
    seen.append(Measurement("burst", {"megapixels": 0.5, "requests": 6.0}, times(0.04)))
    return seen


def test_what_a_profile_would_show_gives_that_profile_back() -> None:
    found = fit_profile(measured(TRUE), "g", "m", 70_000, BASE).profile
    assert {name: getattr(found, name) for name in FITTED} == pytest.approx(
        {name: getattr(TRUE, name) for name in FITTED}, rel=0.01
    )
    assert found.kv_cache_tokens == 70_000
    assert found.health_ms == pytest.approx(3.0)


def test_noise_that_only_makes_times_longer_moves_the_sum_little() -> None:
    found = fit_profile(measured(TRUE, noise=0.3), "g", "m", None, BASE).profile
    batch = ScheduledBatch(prefill_tokens=1000, prefill_pairs=500_000, encoded=[800])
    assert iteration_s(batch, found) == pytest.approx(iteration_s(batch, TRUE), rel=0.25)
    assert encoding_s([800], found) == pytest.approx(encoding_s([800], TRUE), rel=0.4)


def test_a_cost_below_what_can_be_seen_is_nothing_and_never_negative() -> None:
    free = replace(TRUE, cached_item_ms=0.0, context_ns=0.0, encode_item_ms=0.0)
    found = fit_profile(measured(free, noise=0.02), "g", "m", None, BASE)
    assert all(getattr(found.profile, name) >= 0 for name in FITTED)


def test_an_engine_without_pictures_keeps_the_numbers_it_was_given() -> None:
    texts = [one for one in measured(TRUE) if one.series in ("text", "decode")]
    found = fit_profile(texts, "g", "m", None, BASE)
    assert found.profile.preprocess_ms == BASE.preprocess_ms
    assert "preprocess_ms" not in found.sources
    assert found.profile.prefill_us == pytest.approx(TRUE.prefill_us, rel=0.01)


def test_the_written_profile_can_be_read_and_names_the_source_of_each_number() -> None:
    found = fit_profile(measured(TRUE), 'One "GPU" \\ 24GB', "m", 70_000, BASE)
    written = profile_yaml(found, "a card", "vLLM 0.32.0", "2026-01-01", "manyeyes calibrate")
    assert profile.parse_profile(yaml.safe_load(written), "here") == found.profile
    numbers = [line for line in written.splitlines() if not line.startswith(("#", "gpu", "model"))]
    assert all("# measured: " in line or line.endswith("# estimate") for line in numbers)
    assert sum(line.endswith("# estimate") for line in numbers) == 2  # falling asleep and waking up
    assert "a card, measured on 2026-01-01 under vLLM 0.32.0" in written


def test_least_squares_count_relative_errors() -> None:
    found = fit_non_negative([[1, 1], [1, 2], [1, 3]], [3.0, 5.0, 7.0])
    assert found.coefficients == pytest.approx((1.0, 2.0))
    assert found.worst == pytest.approx(0.0, abs=1e-9)


def test_a_slope_that_would_be_negative_is_left_out() -> None:
    found = fit_non_negative([[1, 1], [1, 2], [1, 3]], [3.0, 2.9, 2.8])
    assert found.coefficients[1] == 0
    assert found.coefficients[0] == pytest.approx(2.9, rel=0.01)


@pytest.mark.parametrize(
    ("rows", "why"),
    [([[1, 1]], "1 measurements are too few to determine 2 numbers"), ([[1, 2]] * 3, "cannot separate these numbers")],
)
def test_measurements_that_tell_too_little_are_refused(rows: list[list[float]], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        fit_non_negative(rows, [3.0] * len(rows))


def test_the_time_between_tokens_counts_only_while_all_are_answered() -> None:
    def answer(*times: float) -> TimedAnswer:
        return TimedAnswer(0.0, times, times[-1], 1, len(times))

    early = answer(*(n * 0.1 for n in range(11)))  # alone at first: a token every 0.1 s
    late = answer(*(0.6 + n * 0.05 for n in range(9)))
    assert token_s([early, late]) == pytest.approx((0.1 + 0.05) / 2, rel=0.01)
    assert token_s([answer(0.0, 0.1), answer(5.0, 5.1)]) is None
