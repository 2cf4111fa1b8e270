"""Parses the emulator's command line. Flags with vLLM's names have the same meaning as in vLLM."""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass

from manyeyes.emulator import faults
from manyeyes.emulator.faults import Values
from manyeyes.simulator import profile
from manyeyes.simulator.profile import TimingProfile

DEFAULT_PROFILE = "rtx4090-qwen3-vl-4b-fp8"


@dataclass(frozen=True)
class ConstantTimes:
    """Constant times in seconds, in place of a GPU's timing."""

    first_token_s: float
    medium_s: float  # added for each image or video
    token_s: float


@dataclass(frozen=True)
class EmulatorOptions:
    """One engine's settings. All times are in seconds, whatever the unit on the command line."""

    host: str
    port: int
    served_model_name: tuple[str, ...]
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    max_num_queued_reqs: int
    max_num_queued_tokens: int
    kv_cache_tokens: int
    prefix_caching: bool
    mm_cache_bytes: float
    images_per_prompt: int
    videos_per_prompt: int
    min_pixels: int
    max_pixels: int
    video_frames: int
    video_max_pixels: int
    profile: TimingProfile
    constants: ConstantTimes | None  # instead of the profile's times
    start_s: float
    sleep_mode: bool
    faults_on_command: bool
    faults: tuple[tuple[str, Values], ...]  # active from the start: kind and values
    shutdown_timeout_s: float
    keep_alive_s: int
    max_image_pixels: int
    max_answers: int
    max_completion_prompts: int
    load_tracking: bool
    prompt_tokens_details: bool
    log_requests: bool


def at_least(least: float) -> type[float]:
    """An argparse type: a number of at least `least`."""

    def number(text: str) -> float:
        value = float(text)
        if not least <= value < float("inf"):
            raise ValueError
        return value

    number.__name__ = f"number of at least {least:g}"  # argparse shows this name in its error
    return number  # type: ignore[return-value]


def count(text: str) -> int:
    if (value := int(text)) < 1:
        raise ValueError
    return value


def limits(text: str) -> dict[str, int]:
    """An argparse type: the maximum number of each medium in a prompt, as JSON."""
    value = json.loads(text)
    if not isinstance(value, dict) or not all(isinstance(n, int) and n >= 0 for n in value.values()):
        raise ValueError
    return value


def above_zero(text: str) -> float:
    if not 0 < (value := float(text)) < float("inf"):
        raise ValueError
    return value


def timing(text: str) -> TimingProfile:
    """An argparse type: a profile by name or path."""
    try:
        return profile.load_profile(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def fault(text: str) -> tuple[str, Values]:
    """An argparse type: a fault with its values, as JSON."""
    try:
        return faults.parse_fault(json.loads(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def known_profiles() -> str:
    return f"timing profile: {', '.join(profile.profile_names())}, or a file in the same format ({DEFAULT_PROFILE})"


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m manyeyes.emulator", description="An emulator of vLLM with a GPU's timing."
    )
    p.add_argument("--host", default="0.0.0.0")
    p.add_argument("--port", type=int, default=8000, help="0 chooses a free port, which the first log line names")
    p.add_argument(
        "--served-model-name", nargs="+", required=True, metavar="NAME", help="the first name is used in metrics"
    )
    p.add_argument("--max-model-len", type=count, default=8192, help="tokens of prompt and answer together")
    p.add_argument(
        "--max-num-seqs", type=count, default=64, help="requests that run concurrently; further requests wait"
    )
    p.add_argument("--max-num-batched-tokens", type=count, default=4096, help="tokens computed in one iteration")
    p.add_argument(
        "--max-num-queued-reqs", type=count, help="running and waiting requests; more get 503. Default: no limit"
    )
    p.add_argument(
        "--max-num-queued-tokens",
        type=count,
        help="tokens of prompts without a first token; more get 503. Default: no limit",
    )
    p.add_argument("--kv-cache-tokens", type=count, help="size of the KV cache, instead of the profile's")
    p.add_argument("--enable-prefix-caching", action=argparse.BooleanOptionalAction, default=True)
    p.add_argument(
        "--mm-processor-cache-gb", type=at_least(0), default=4.0, help="cache for preprocessed media; 0 disables it"
    )
    p.add_argument("--limit-mm-per-prompt", type=limits, default={}, metavar="JSON", help="default: no limit")
    p.add_argument("--min-pixels", type=count, default=65_536, help="a smaller image counts as this many pixels")
    p.add_argument("--max-pixels", type=count, default=1_310_720, help="a larger image counts as this many pixels")
    p.add_argument("--video-frames", type=count, default=16, help="maximum number of frames from a video")
    p.add_argument(
        "--video-max-pixels", type=count, default=16 * 262_144, help="maximum of all frames of a video together"
    )
    p.add_argument("--profile", type=timing, default=DEFAULT_PROFILE, metavar="NAME|PATH", help=known_profiles())
    p.add_argument("--speed", type=above_zero, default=1.0, help="divides every time except that of the shutdown")
    p.add_argument("--start-seconds", type=at_least(0), default=2.0, help="time until the port is open")
    fixed = p.add_argument_group("constant times instead of a profile; one of these flags is enough")
    fixed.add_argument("--ttft-ms", type=at_least(0), help="from admission to the first token (120)")
    fixed.add_argument("--image-ms", type=at_least(0), help="added for each image or video (60)")
    fixed.add_argument("--tpot-ms", type=at_least(0), help="from one token to the next (12)")
    p.add_argument(
        "--enable-sleep-mode",
        action="store_true",
        help="open /sleep and /wake_up; as in vLLM, requires VLLM_SERVER_DEV_MODE=1",
    )
    p.add_argument(
        "--enable-server-load-tracking", action="store_true", help="count requests in /load; without it /load returns 0"
    )
    p.add_argument(
        "--enable-prompt-tokens-details",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="report the prompt tokens from the prefix cache; vLLM's default is off",
    )
    p.add_argument("--enable-log-requests", action="store_true", help="write a log line for each request")
    p.add_argument(
        "--faults", action="store_true", help="open /emulator/faults, for every client that reaches the port"
    )
    p.add_argument(
        "--fault", type=fault, action="append", default=[], metavar="JSON", help='{"kind": ...}, active from the start'
    )
    p.add_argument("--shutdown-timeout", type=at_least(0), default=0.0, help="seconds to finish after SIGTERM")
    return p


def parse(arguments: Sequence[str]) -> EmulatorOptions:
    """Parses the command line. Exits with 2 and a message if it is invalid."""
    a = parser().parse_args(arguments)
    unlimited = 1_000_000_000
    if a.kv_cache_tokens and a.kv_cache_tokens < a.max_model_len:
        parser().error(
            f"--kv-cache-tokens={a.kv_cache_tokens} cannot hold a sequence of --max-model-len={a.max_model_len}. Lower the "
            "latter or raise the former."
        )
    return EmulatorOptions(
        host=a.host,
        port=a.port,
        served_model_name=tuple(a.served_model_name),
        max_model_len=a.max_model_len,
        max_num_seqs=a.max_num_seqs,
        max_num_batched_tokens=a.max_num_batched_tokens,
        max_num_queued_reqs=a.max_num_queued_reqs or unlimited,
        max_num_queued_tokens=a.max_num_queued_tokens or unlimited,
        # vLLM would refuse to start; here the profile may be of a smaller card than the emulated card.
        kv_cache_tokens=a.kv_cache_tokens or max(a.profile.kv_cache_tokens, a.max_model_len),
        prefix_caching=a.enable_prefix_caching,
        mm_cache_bytes=a.mm_processor_cache_gb * 1024**3,
        images_per_prompt=a.limit_mm_per_prompt.get("image", unlimited),
        videos_per_prompt=a.limit_mm_per_prompt.get("video", unlimited),
        min_pixels=a.min_pixels,
        max_pixels=a.max_pixels,
        video_frames=a.video_frames,
        video_max_pixels=a.video_max_pixels,
        profile=a.profile.faster(a.speed),
        constants=constants(a),
        start_s=a.start_seconds / a.speed,
        sleep_mode=a.enable_sleep_mode and os.environ.get("VLLM_SERVER_DEV_MODE") == "1",
        faults_on_command=a.faults,
        faults=tuple(a.fault),
        shutdown_timeout_s=a.shutdown_timeout,
        # vLLM reads the same environment variables, so one setting works for every flavour.
        keep_alive_s=int(os.environ.get("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", "5")),
        max_image_pixels=int(os.environ.get("VLLM_MAX_IMAGE_PIXELS", "178956970")),
        max_answers=int(os.environ.get("VLLM_MAX_N_SEQUENCES", "16384")),
        max_completion_prompts=int(os.environ.get("VLLM_MAX_COMPLETION_PROMPTS", "1024")),
        load_tracking=a.enable_server_load_tracking,
        prompt_tokens_details=a.enable_prompt_tokens_details,
        log_requests=a.enable_log_requests,
    )


def constants(a: argparse.Namespace) -> ConstantTimes | None:
    """The constant times; None if no such flag is given."""
    given = (a.ttft_ms, a.image_ms, a.tpot_ms)
    if all(value is None for value in given):
        return None
    times = (default if value is None else value for value, default in zip(given, (120.0, 60.0, 12.0), strict=True))
    return ConstantTimes(*(value / 1000 / a.speed for value in times))
