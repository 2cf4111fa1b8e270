"""From measurements to a profile's numbers. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from engine.physics.profile import Profile
from loadtest.calibrate.fit import Fit, fit
from loadtest.calibrate.measure import Seen, series

PIXELS_A_TOKEN = 1024
NOT_MEASURED = ("sleep_s", "wake_s")


@dataclass(frozen=True)
class Fitted:
    """`sources`: for each number of the profile, how it was found. `checks`: what was measured beside what the profile says."""

    profile: Profile
    sources: dict[str, str]
    first_fit: Fit  # of times to first tokens
    token_fit: Fit  # of times between tokens
    checks: list[tuple[str, float, float]]  # name, measured s, by the profile s


def fitted(seen: Sequence[Seen], gpu: str, model: str, kv_cache_tokens: int | None, base: Profile) -> Fitted:
    """`base` gives what is not measured. Raises ValueError when there is too little to tell."""
    decoding = list(series(seen, "decode"))
    tokens = fit([[1.0, one.x["requests"], one.x["context"]] for one in decoding], [one.middle_s for one in decoding])
    iteration_s, each_s, context_s = tokens.coefficients
    rows, values = _first_tokens(seen)
    firsts = fit(rows, values)
    start_s, prefill_s, decode_s, cached_s, item_s, megapixel_s, encode_item_s, encode_token_s = (
        *firsts.coefficients,
        *([0.0] * (8 - len(firsts.coefficients))),
    )
    has_pictures = len(firsts.coefficients) > 2
    health = list(series(seen, "health"))
    profile = replace(
        base,
        gpu=gpu,
        model=model,
        kv_cache_tokens=kv_cache_tokens or base.kv_cache_tokens,
        render_ms=max(0.0, 1e3 * (start_s - iteration_s)),
        iteration_ms=1e3 * iteration_s,
        decode_us=1e6 * each_s,
        context_ns=1e9 * context_s,
        prefill_us=1e6 * prefill_s,
    )
    if has_pictures:
        profile = replace(
            profile,
            decode_ms=1e3 * decode_s,
            cached_item_ms=1e3 * cached_s,
            preprocess_item_ms=1e3 * item_s,
            preprocess_ms=1e3 * megapixel_s,
            encode_item_ms=1e3 * encode_item_s,
            encode_us=1e6 * encode_token_s,
        )
    if health:
        profile = replace(profile, health_ms=1e3 * max(one.middle_s / one.x["requests"] for one in health))
    sources = _sources(tokens, firsts, has_pictures, bool(health), kv_cache_tokens is not None)
    return Fitted(_rounded(profile), sources, firsts, tokens, _checks(seen, profile))


def _first_tokens(seen: Sequence[Seen]) -> tuple[list[list[float]], list[float]]:
    """A row for each: start, prompt tokens, decoded megapixels, known item, new item, its megapixels, encoded item, tokens."""
    kinds: dict[str, Callable[[float, float], list[float]]] = {
        "known": lambda mp, tokens: [mp, 1, 0, 0, 0, 0],
        "remembered": lambda mp, tokens: [mp, 1, 0, 0, 1, tokens],
        "fresh": lambda mp, tokens: [mp, 0, 1, mp, 1, tokens],
    }
    rows, values = [], []
    pictures = any(one.series in kinds for one in seen)
    for one in seen:
        if one.series == "text":
            rows.append([1.0, one.x["tokens"], *([0.0] * 6 if pictures else [])])
        elif one.series in kinds:
            mp = one.x["megapixels"]
            rows.append([1.0, one.x["tokens"], *kinds[one.series](mp, mp * 1e6 / PIXELS_A_TOKEN)])
        else:
            continue
        values.append(one.middle_s)
    return rows, values


def _checks(seen: Sequence[Seen], profile: Profile) -> list[tuple[str, float, float]]:
    """What was not fitted: new pictures at once come as fast as the slower of the preprocessing thread and the engine."""
    found = []
    for one in series(seen, "burst"):
        mp = one.x["megapixels"]
        tokens = mp * 1e6 / PIXELS_A_TOKEN
        thread_s = (profile.preprocess_item_ms + profile.preprocess_ms * mp) / 1e3
        gpu_s = (profile.encode_item_ms / 1e3) + (profile.encode_us + profile.prefill_us) / 1e6 * tokens
        found.append(
            (f"each of {one.x['requests']:.0f} new pictures of {mp:.2f} MP at once", one.middle_s, max(thread_s, gpu_s))
        )
    return found


def _sources(tokens: Fit, firsts: Fit, pictures: bool, health: bool, kv: bool) -> dict[str, str]:
    between = f"time between tokens, alone and together; residuals {tokens.typical:.0%}, at worst {tokens.worst:.0%}"
    first = f"first tokens of texts and pictures; residuals {firsts.typical:.0%}, at worst {firsts.worst:.0%}"
    sources = {
        "kv_cache_tokens": "blocks x block size in vllm:cache_config_info" if kv else "",
        "render_ms": "first tokens of texts, less an iteration",
        "iteration_ms": between,
        "decode_us": between,
        "context_ns": between,
        "prefill_us": first,
    }
    if pictures:
        sources |= {
            "decode_ms": "first tokens of known pictures beside those of texts",
            "cached_item_ms": "first tokens of known pictures beside those of texts",
            "preprocess_item_ms": "first tokens of new pictures beside those with known pixels",
            "preprocess_ms": "first tokens of new pictures beside those with known pixels",
            "encode_item_ms": "first tokens of pictures that are no longer encoded beside those that are",
            "encode_us": "first tokens of pictures that are no longer encoded beside those that are",
        }
    if health:
        sources["health_ms"] = "GET /health while new pictures are in rendering, divided by their number"
    return {name: source for name, source in sources.items() if source}


def _rounded(profile: Profile) -> Profile:
    """Four digits; more would only be noise."""
    numbers: dict[str, Any] = {
        one.name: float(f"{getattr(profile, one.name):.4g}") for one in fields(Profile) if one.type is float
    }
    return replace(profile, **numbers)
