"""From measurements to a profile's numbers, and the profile as YAML: each number with where it is from. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import scipy.optimize

from manyeyes.calibration.measure import Measurement, series
from manyeyes.simulator.core import encoding_s, prefill_s
from manyeyes.simulator.profile import TimingProfile
from manyeyes.simulator.scheduler import ScheduledBatch


@dataclass(frozen=True)
class LeastSquaresFit:
    """`worst`: the largest residual as a share of its value; `typical`: the median of them."""

    coefficients: tuple[float, ...]
    residuals: tuple[float, ...]
    worst: float
    typical: float


def fit_non_negative(rows: Sequence[Sequence[float]], values: Sequence[float]) -> LeastSquaresFit:
    """Coefficients c with `rows x c` near `values`; each row counts by its relative error.

    No coefficient is negative: a cost cannot be negative, and
    where it seems so it is below what the measurement can see. Raises ValueError when there are fewer rows than columns.
    """
    columns = len(rows[0])
    if len(rows) < columns:
        raise ValueError(f"{len(rows)} measurements cannot tell {columns} numbers")
    weighted = np.array(rows, dtype=float) / np.array(values, dtype=float)[:, np.newaxis]
    scale = np.maximum(np.abs(weighted).max(axis=0), 1e-300)
    if np.linalg.matrix_rank(weighted / scale) < columns:
        raise ValueError("the measurements do not tell these numbers apart")
    found, _ = scipy.optimize.nnls(weighted / scale, np.ones(len(rows)))
    coefficients = [float(one) for one in found / scale]
    residuals = [
        value - sum(c * x for c, x in zip(coefficients, row, strict=True))
        for row, value in zip(rows, values, strict=True)
    ]
    shares = sorted(abs(residual) / value for residual, value in zip(residuals, values, strict=True))
    return LeastSquaresFit(tuple(coefficients), tuple(residuals), shares[-1], shares[len(shares) // 2])


PIXELS_A_TOKEN = 1024


@dataclass(frozen=True)
class FittedProfile:
    """`sources`: for each number of the profile, how it was found. `checks`: what was measured beside what the profile says."""

    profile: TimingProfile
    sources: dict[str, str]
    first_fit: LeastSquaresFit  # of times to first tokens
    token_fit: LeastSquaresFit  # of times between tokens
    checks: list[tuple[str, float, float]]  # name, measured s, by the profile s


def fit_profile(
    seen: Sequence[Measurement], gpu: str, model: str, kv_cache_tokens: int | None, base: TimingProfile
) -> FittedProfile:
    """`base` gives what is not measured. Raises ValueError when there is too little to tell."""
    decoding = list(series(seen, "decode"))
    tokens = fit_non_negative(
        [[1.0, one.x["requests"], one.x["context"]] for one in decoding], [one.middle_s for one in decoding]
    )
    iteration_s, each_s, context_s = tokens.coefficients
    rows, values = _first_tokens(seen)
    firsts = fit_non_negative(rows, values)
    columns = dict(zip(COLUMNS, firsts.coefficients, strict=False))
    health = list(series(seen, "health"))
    texts = list(series(seen, "text"))
    profile = replace(
        base,
        gpu=gpu,
        model=model,
        kv_cache_tokens=kv_cache_tokens or base.kv_cache_tokens,
        render_ms=max(0.0, 1e3 * (columns["start"] - iteration_s)),
        iteration_ms=1e3 * iteration_s,
        decode_us=1e6 * each_s,
        context_ns=1e9 * context_s,
        prefill_us=1e6 * columns["token"],
        prefill_pair_ns=1e9 * columns["pair"],
        tokens_per_word=tokens_per_word(texts),
    )
    if has_pictures := "decoded" in columns:
        profile = replace(
            profile,
            decode_ms=1e3 * columns["decoded"],
            cached_item_ms=1e3 * columns["known"],
            preprocess_item_ms=1e3 * columns["new"],
            preprocess_ms=1e3 * columns["preprocessed"],
            encode_item_ms=1e3 * columns["encoded item"],
            encode_us=1e6 * columns["encoded token"],
            encode_pair_ns=1e9 * columns["encoded pair"],
        )
    if health:
        profile = replace(profile, health_ms=1e3 * max(one.quick_s / one.x["requests"] for one in health))
    sources = _sources(tokens, firsts, has_pictures, bool(health), kv_cache_tokens is not None)
    return FittedProfile(_rounded(profile), sources, firsts, tokens, _checks(seen, profile))


def tokens_per_word(texts: Sequence[Measurement]) -> float:
    """What each further word of a text adds; 1 where only one length was measured."""
    words, tokens = [one.x["words"] for one in texts], [one.x["tokens"] for one in texts]
    if len(texts) < 2 or words[-1] == words[0]:
        return 1.0
    return (tokens[-1] - tokens[0]) / (words[-1] - words[0])


COLUMNS = (
    *("start", "token", "pair"),
    *("decoded", "known", "new", "preprocessed", "encoded item", "encoded token", "encoded pair"),
)
"""Of what the time to a first token is made: the last seven only where there are pictures."""


def _first_tokens(seen: Sequence[Measurement]) -> tuple[list[list[float]], list[float]]:
    """A row of COLUMNS for each measurement, and its time."""
    rows, values = [], []
    pictures = any(one.series == "fresh" for one in seen)
    for one in seen:
        if one.series not in ("text", "fresh", "remembered", "known"):
            continue
        tokens, mp = one.x["tokens"], one.x.get("megapixels", 0.0)
        row = [1.0, tokens, tokens * tokens / 2]
        if pictures:
            vision = mp * 1e6 / PIXELS_A_TOKEN
            new = one.series == "fresh"
            row += [mp, float(one.series in ("remembered", "known")), float(new), mp if new else 0.0]
            encoded = new or one.series == "remembered"
            row += [1.0, vision, vision * vision / 2] if encoded else [0.0] * 3
        rows.append(row)
        values.append(one.quick_s)
    return rows, values


def _checks(seen: Sequence[Measurement], profile: TimingProfile) -> list[tuple[str, float, float]]:
    """What was not fitted: new pictures at once come as fast as the slower of the preprocessing thread and the engine."""
    found = []
    for one in series(seen, "burst"):
        mp = one.x["megapixels"]
        tokens = round(mp * 1e6 / PIXELS_A_TOKEN)
        thread_s = (profile.preprocess_item_ms + profile.preprocess_ms * mp) / 1e3
        batch = ScheduledBatch(prefill_tokens=tokens, prefill_pairs=tokens * tokens // 2)
        gpu_s = encoding_s([tokens], profile) + prefill_s(batch, profile)
        found.append(
            (f"each of {one.x['requests']:.0f} new pictures of {mp:.2f} MP at once", one.middle_s, max(thread_s, gpu_s))
        )
    return found


def _sources(
    tokens: LeastSquaresFit, firsts: LeastSquaresFit, pictures: bool, health: bool, kv: bool
) -> dict[str, str]:
    between = f"time between tokens, alone and together; residuals {tokens.typical:.0%}, at worst {tokens.worst:.0%}"
    first = f"first tokens of texts and pictures; residuals {firsts.typical:.0%}, at worst {firsts.worst:.0%}"
    sources = {
        "kv_cache_tokens": "blocks x block size in vllm:cache_config_info" if kv else "",
        "render_ms": "first tokens of texts, less an iteration",
        "iteration_ms": between,
        "decode_us": between,
        "context_ns": between,
        "prefill_us": first,
        "prefill_pair_ns": first,
        "tokens_per_word": "usage.prompt_tokens of texts of different lengths; plain English words",
    }
    if pictures:
        sources |= {
            "decode_ms": "first tokens of known pictures beside those of texts",
            "cached_item_ms": "first tokens of known pictures beside those of texts",
            "preprocess_item_ms": "first tokens of new pictures beside those with known pixels",
            "preprocess_ms": "first tokens of new pictures beside those with known pixels",
            "encode_item_ms": "first tokens of pictures that are no longer encoded beside those that are",
            "encode_pair_ns": "first tokens of pictures that are no longer encoded beside those that are",
            "encode_us": "first tokens of pictures that are no longer encoded beside those that are",
        }
    if health:
        sources["health_ms"] = "GET /health while new pictures are in rendering, divided by their number"
    return {name: source for name, source in sources.items() if source}


def _rounded(profile: TimingProfile) -> TimingProfile:
    """Four digits; more would only be noise."""
    numbers: dict[str, Any] = {
        one.name: float(f"{getattr(profile, one.name):.4g}") for one in fields(TimingProfile) if one.type is float
    }
    return replace(profile, **numbers)


def profile_yaml(found: FittedProfile, device: str, engine: str, date: str, command: str) -> str:
    lines = [
        f"# Timing of {found.profile.model} on {device}, measured on {date} under {engine} by",
        f"#   {command}",
        "# `measured` means: fitted to the times that the .jsonl file beside this one holds. Residuals are shares of the time.",
        "# `estimate` means: not measured, taken from the profile that was given as base.",
    ]
    lines += [
        f"# Check, not fitted: {name}: measured {1e3 * one:.1f} ms, by these numbers {1e3 * other:.1f} ms."
        for name, one, other in found.checks
    ]
    for field in fields(TimingProfile):
        value = getattr(found.profile, field.name)
        if isinstance(value, str):
            lines.append(f"{field.name}: {_quoted(value)}")
            continue
        source = found.sources.get(field.name)
        note = f"measured: {source}" if source else "estimate"
        lines.append(f"{f'{field.name}: {value:g}':26} # {note}")
    return "\n".join(lines) + "\n"


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
