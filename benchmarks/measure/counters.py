"""What engines count of themselves, from their /metrics."""

import re
import urllib.request
from collections.abc import Sequence

_SAMPLE = re.compile(r"^(vllm:[a-z_]+)(?:\{[^}]*\})? ([0-9.eE+-]+)$", re.M)
COUNTED = (
    "vllm:prefix_cache_queries_total",
    "vllm:prefix_cache_hits_total",
    "vllm:mm_cache_queries_total",
    "vllm:mm_cache_hits_total",
    "vllm:request_success_total",
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:num_preemptions_total",
)


def read(text: str) -> dict[str, float]:
    """Sums over all labels, by name, of those in COUNTED."""
    sums = dict.fromkeys(COUNTED, 0.0)
    for name, value in _SAMPLE.findall(text):
        if name in sums:
            sums[name] += float(value)
    return sums


def scrape(engines: Sequence[str]) -> list[dict[str, float]]:
    """One dictionary per engine."""
    found = []
    for engine in engines:
        with urllib.request.urlopen(f"http://{engine}/metrics", timeout=20) as reply:
            found.append(read(reply.read().decode()))
    return found


def difference(before: Sequence[dict[str, float]], after: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: late[name] - early[name] for name in late} for early, late in zip(before, after, strict=True)]


def share(counted: Sequence[dict[str, float]], hits: str, queries: str) -> float:
    """0 to 1 over all engines; 0 where nothing was asked."""
    asked = sum(one[queries] for one in counted)
    return sum(one[hits] for one in counted) / asked if asked else 0.0
