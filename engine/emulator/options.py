"""What the emulator can be told on its command line. Names that vLLM has mean what they mean there."""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """One engine's settings. Times are in seconds, whatever unit the command line takes them in."""

    host: str
    port: int
    served_model_name: tuple[str, ...]
    max_model_len: int
    max_num_seqs: int
    max_num_queued_reqs: int
    images_per_prompt: int
    videos_per_prompt: int
    min_pixels: int
    max_pixels: int
    start_s: float
    first_token_s: float
    image_s: float
    token_s: float
    shutdown_timeout_s: float
    keep_alive_s: int


def at_least(least: float) -> type[float]:
    """An argparse type: a number not below `least`."""

    def number(text: str) -> float:
        value = float(text)
        if not least <= value < float("inf"):
            raise ValueError
        return value

    number.__name__ = f"number of at least {least:g}"  # what argparse says in its error
    return number  # type: ignore[return-value]


def count(text: str) -> int:
    """An argparse type: 1 or more."""
    if (value := int(text)) < 1:
        raise ValueError
    return value


def limits(text: str) -> dict[str, int]:
    """An argparse type: how many of each medium a prompt may hold, as JSON."""
    value = json.loads(text)
    if not isinstance(value, dict) or not all(isinstance(n, int) and n >= 0 for n in value.values()):
        raise ValueError
    return value


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m engine.emulator", description="A stand-in for vLLM with simple timing.")
    p.add_argument("--host", default="0.0.0.0")
    p.add_argument("--port", type=int, default=8000, help="0 takes a free one; the first log line names it")
    p.add_argument(
        "--served-model-name", nargs="+", required=True, metavar="NAME", help="the first is the one in metrics"
    )
    p.add_argument("--max-model-len", type=count, default=8192, help="tokens of prompt and answer together")
    p.add_argument("--max-num-seqs", type=count, default=64, help="requests that run at once; more of them wait")
    p.add_argument(
        "--max-num-queued-reqs", type=count, help="running and waiting; more get 503. Without it, any number"
    )
    p.add_argument("--limit-mm-per-prompt", type=limits, default={}, metavar="JSON", help="without it, any number")
    p.add_argument("--min-pixels", type=count, default=65_536, help="a smaller image counts as one of so many")
    p.add_argument("--max-pixels", type=count, default=1_310_720, help="a larger image counts as one of so many")
    p.add_argument("--start-seconds", type=at_least(0), default=2.0, help="until the port is open")
    p.add_argument("--ttft-ms", type=at_least(0), default=120.0, help="from admission to the first token")
    p.add_argument("--image-ms", type=at_least(0), default=60.0, help="what each image or video adds to that")
    p.add_argument("--tpot-ms", type=at_least(0), default=12.0, help="from one token to the next")
    p.add_argument("--shutdown-timeout", type=at_least(0), default=0.0, help="seconds to finish after SIGTERM")
    return p


def parse(arguments: Sequence[str]) -> Options:
    """Read the command line. Exits 2 with a sentence when it is wrong."""
    a = parser().parse_args(arguments)
    unlimited = 1_000_000
    return Options(
        host=a.host,
        port=a.port,
        served_model_name=tuple(a.served_model_name),
        max_model_len=a.max_model_len,
        max_num_seqs=a.max_num_seqs,
        max_num_queued_reqs=a.max_num_queued_reqs or unlimited,
        images_per_prompt=a.limit_mm_per_prompt.get("image", unlimited),
        videos_per_prompt=a.limit_mm_per_prompt.get("video", unlimited),
        min_pixels=a.min_pixels,
        max_pixels=a.max_pixels,
        start_s=a.start_seconds,
        first_token_s=a.ttft_ms / 1000,
        image_s=a.image_ms / 1000,
        token_s=a.tpot_ms / 1000,
        shutdown_timeout_s=a.shutdown_timeout,
        # vLLM takes this one from its environment too, so one setting serves every flavour.
        keep_alive_s=int(os.environ.get("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", "5")),
    )
