"""Fits a timing profile to measurements, and writes it as YAML with the source of each number. Pure."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import scipy.optimize

from manyeyes.calibration.measure import Measurement, series
from manyeyes.simulator.core import encoding_s, prefill_s
from manyeyes.simulator.profile import TimingProfile
from manyeyes.simulator.scheduler import ScheduledBatch


@dataclass(frozen=True)
class LeastSquaresFit:
    """`worst`: the largest relative residual; `typical`: the median of the relative residuals."""

    coefficients: tuple[float, ...]
    worst: float
    typical: float

    def __str__(self) -> str:
        return f"residuals {self.typical:.0%}, largest {self.worst:.0%}"


def fit_non_negative(rows: Sequence[Sequence[float]], values: Sequence[float]) -> LeastSquaresFit:
    """Returns non-negative coefficients c that minimise the relative errors of `rows x c` to `values`.

    A cost cannot be negative; a cost too small to be measured becomes 0. Raises ValueError if the rows do not determine
    the coefficients.
    """
    columns = len(rows[0])
    if len(rows) < columns:
        raise ValueError(f"{len(rows)} measurements are too few to determine {columns} numbers")
    weighted = np.array(rows, dtype=float) / np.array(values, dtype=float)[:, np.newaxis]
    scale = np.maximum(np.abs(weighted).max(axis=0), 1e-300)
    if np.linalg.matrix_rank(weighted / scale) < columns:
        raise ValueError("the measurements cannot separate these numbers")
    solution, _ = scipy.optimize.nnls(weighted / scale, np.ones(len(rows)))
    coefficients = solution / scale
    residuals = np.sort(np.abs(1 - weighted @ coefficients))
    return LeastSquaresFit(
        tuple(float(coefficient) for coefficient in coefficients),
        float(residuals[-1]),
        float(residuals[len(residuals) // 2]),
    )


PIXELS_PER_TOKEN = 1024
BETWEEN_TOKENS = {"iteration_ms": 1e3, "decode_us": 1e6, "context_ns": 1e9}
"""Components of the time between two tokens: numbers of a profile, and their units per second."""
CACHED_IMAGES = "first tokens of cached images, compared with those of texts"
NEW_IMAGES = "first tokens of new images, compared with images whose pixels are cached"
ENCODED_IMAGES = "first tokens of images that must be encoded again, compared with images in the encoder's cache"
IMAGE_COMPONENTS = (
    ("decode_ms", 1e3, CACHED_IMAGES),
    ("cached_item_ms", 1e3, CACHED_IMAGES),
    ("preprocess_item_ms", 1e3, NEW_IMAGES),
    ("preprocess_ms", 1e3, NEW_IMAGES),
    ("encode_item_ms", 1e3, ENCODED_IMAGES),
    ("encode_us", 1e6, ENCODED_IMAGES),
    ("encode_pair_ns", 1e9, ENCODED_IMAGES),
)
"""Components that images add to the time to the first token: number of the profile, units per second, source."""


@dataclass(frozen=True)
class FittedProfile:
    """`sources`: how each number of the profile was measured. `checks`: measured times and the profile's predictions."""

    profile: TimingProfile
    sources: dict[str, str]
    checks: list[tuple[str, float, float]]  # name, measured s, predicted s


def fit_profile(
    measurements: Sequence[Measurement], gpu: str, model: str, kv_cache_tokens: int | None, base: TimingProfile
) -> FittedProfile:
    """Fits the profile. `base` has the numbers that are not measured. Raises ValueError if the measurements are too few."""
    decoding, texts, health = (list(series(measurements, name)) for name in ("decode", "text", "health"))
    between = fit_non_negative(
        [[1.0, measurement.x["requests"], measurement.x["context"]] for measurement in decoding],
        [measurement.median_s for measurement in decoding],
    )
    rows, values = _first_tokens(measurements)
    firsts = fit_non_negative(rows, values)
    start_s, token_s, pair_s, *image_coefficients = firsts.coefficients
    numbers = {
        name: units_per_s * coefficient
        for (name, units_per_s), coefficient in zip(BETWEEN_TOKENS.items(), between.coefficients, strict=True)
    }
    sources = dict.fromkeys(numbers, f"time between tokens, single and concurrent requests; {between}")
    numbers["render_ms"] = max(0.0, 1e3 * start_s - numbers["iteration_ms"])
    sources["render_ms"] = "first tokens of texts, minus an iteration"
    numbers |= {"prefill_us": 1e6 * token_s, "prefill_pair_ns": 1e9 * pair_s}
    sources |= dict.fromkeys(("prefill_us", "prefill_pair_ns"), f"first tokens of texts and images; {firsts}")
    numbers["tokens_per_word"] = tokens_per_word(texts)
    sources["tokens_per_word"] = "usage.prompt_tokens of texts of different lengths; plain English words"
    for (name, units_per_s, source), coefficient in zip(IMAGE_COMPONENTS, image_coefficients, strict=False):
        numbers[name], sources[name] = units_per_s * coefficient, source
    if health:
        numbers["health_ms"] = 1e3 * max(
            measurement.first_quartile_s / measurement.x["requests"] for measurement in health
        )
        sources["health_ms"] = "GET /health while new images are in rendering, divided by their number"
    if kv_cache_tokens:
        sources["kv_cache_tokens"] = "blocks x block size in vllm:cache_config_info"
    profile = replace(
        base,
        gpu=gpu,
        model=model,
        kv_cache_tokens=kv_cache_tokens or base.kv_cache_tokens,
        **numbers,
    )
    return FittedProfile(_round_numbers(profile), sources, _checks(measurements, profile))


def tokens_per_word(texts: Sequence[Measurement]) -> float:
    """Tokens that each further word of a text adds; 1 if only one length was measured."""
    words, tokens = (
        [measurement.x["words"] for measurement in texts],
        [measurement.x["tokens"] for measurement in texts],
    )
    if len(texts) < 2 or words[-1] == words[0]:
        return 1.0
    return (tokens[-1] - tokens[0]) / (words[-1] - words[0])


def _first_tokens(measurements: Sequence[Measurement]) -> tuple[list[list[float]], list[float]]:
    """Returns a row (start, tokens, pairs of tokens, IMAGE_COMPONENTS) and the time of each measurement."""
    rows, values = [], []
    has_images = any(measurement.series == "fresh" for measurement in measurements)
    for measurement in measurements:
        if measurement.series not in ("text", "fresh", "remembered", "known"):
            continue
        tokens, megapixels = measurement.x["tokens"], measurement.x.get("megapixels", 0.0)
        row = [1.0, tokens, tokens * tokens / 2]
        if has_images:
            vision = megapixels * 1e6 / PIXELS_PER_TOKEN
            is_new = measurement.series == "fresh"
            row += [
                megapixels,
                float(measurement.series in ("remembered", "known")),
                float(is_new),
                megapixels if is_new else 0.0,
            ]
            is_encoded = is_new or measurement.series == "remembered"
            row += [1.0, vision, vision * vision / 2] if is_encoded else [0.0] * 3
        rows.append(row)
        values.append(measurement.first_quartile_s)
    return rows, values


def _checks(measurements: Sequence[Measurement], profile: TimingProfile) -> list[tuple[str, float, float]]:
    """Checks that are not fitted: concurrent new images take as long as the slower of preprocessing thread and engine."""
    checks = []
    for measurement in series(measurements, "burst"):
        megapixels = measurement.x["megapixels"]
        tokens = round(megapixels * 1e6 / PIXELS_PER_TOKEN)
        thread_s = (profile.preprocess_item_ms + profile.preprocess_ms * megapixels) / 1e3
        batch = ScheduledBatch(prefill_tokens=tokens, prefill_pairs=tokens * tokens // 2)
        gpu_s = encoding_s([tokens], profile) + prefill_s(batch, profile)
        name = f"each of {measurement.x['requests']:.0f} concurrent new images of {megapixels:.2f} MP"
        checks.append((name, measurement.median_s, max(thread_s, gpu_s)))
    return checks


def _round_numbers(profile: TimingProfile) -> TimingProfile:
    """Rounds to four digits; further digits are noise."""
    numbers = {
        field.name: float(f"{getattr(profile, field.name):.4g}") for field in fields(profile) if field.type is float
    }
    return replace(profile, **numbers)  # type: ignore[arg-type]


def profile_yaml(fitted: FittedProfile, device: str, engine: str, date: str, command: str) -> str:
    lines = [
        f"# Timing of {fitted.profile.model} on {device}, measured on {date} under {engine} by",
        f"#   {command}",
        "# `measured` means: fitted to the times in the .jsonl file next to this file. Residuals are fractions of the time.",
        "# `estimate` means: not measured, taken from the base profile.",
    ]
    lines += [
        f"# Check, not fitted: {name}: measured {1e3 * measured_s:.1f} ms, predicted {1e3 * predicted_s:.1f} ms."
        for name, measured_s, predicted_s in fitted.checks
    ]
    for field in fields(TimingProfile):
        value = getattr(fitted.profile, field.name)
        if isinstance(value, str):
            lines.append(f"{field.name}: {json.dumps(value)}")
            continue
        source = fitted.sources.get(field.name)
        source_note = f"measured: {source}" if source else "estimate"
        lines.append(f"{f'{field.name}: {value:g}':26} # {source_note}")
    return "\n".join(lines) + "\n"
