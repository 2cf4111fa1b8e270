"""What the emulator can be told on its command line. Names that vLLM has mean what they mean there."""

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
    """Times that depend on nothing, in place of a GPU's: seconds."""

    first_token_s: float
    medium_s: float  # what each image or video adds to that
    token_s: float


@dataclass(frozen=True)
class EmulatorOptions:
    """One engine's settings. Times are in seconds, whatever unit the command line takes them in."""

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
    faults: tuple[tuple[str, Values], ...]  # from the start: kind and values
    shutdown_timeout_s: float
    keep_alive_s: int
    max_image_pixels: int
    max_answers: int
    max_completion_prompts: int
    load_tracking: bool
    log_requests: bool


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
    if (value := int(text)) < 1:
        raise ValueError
    return value


def limits(text: str) -> dict[str, int]:
    """An argparse type: how many of each medium a prompt may hold, as JSON."""
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
    return f"whose times to take: {', '.join(profile.profile_names())}, or a file like theirs ({DEFAULT_PROFILE})"


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m manyeyes.emulator", description="A stand-in for vLLM with a GPU's timing."
    )
    p.add_argument("--host", default="0.0.0.0")
    p.add_argument("--port", type=int, default=8000, help="0 takes a free one; the first log line names it")
    p.add_argument(
        "--served-model-name", nargs="+", required=True, metavar="NAME", help="the first is the one in metrics"
    )
    p.add_argument("--max-model-len", type=count, default=8192, help="tokens of prompt and answer together")
    p.add_argument("--max-num-seqs", type=count, default=64, help="requests that run at once; more of them wait")
    p.add_argument("--max-num-batched-tokens", type=count, default=4096, help="tokens that one iteration computes")
    p.add_argument(
        "--max-num-queued-reqs", type=count, help="running and waiting; more get 503. Without it, any number"
    )
    p.add_argument(
        "--max-num-queued-tokens", type=count, help="of prompts without a first token yet; more get 503. Default: any"
    )
    p.add_argument("--kv-cache-tokens", type=count, help="what the KV cache holds, instead of the profile's number")
    p.add_argument("--enable-prefix-caching", action=argparse.BooleanOptionalAction, default=True)
    p.add_argument("--mm-processor-cache-gb", type=at_least(0), default=4.0, help="for preprocessed media; 0: none")
    p.add_argument("--limit-mm-per-prompt", type=limits, default={}, metavar="JSON", help="without it, any number")
    p.add_argument("--min-pixels", type=count, default=65_536, help="a smaller image counts as one of so many")
    p.add_argument("--max-pixels", type=count, default=1_310_720, help="a larger image counts as one of so many")
    p.add_argument("--video-frames", type=count, default=16, help="the most that are taken from a video")
    p.add_argument("--video-max-pixels", type=count, default=16 * 262_144, help="of all frames of a video together")
    p.add_argument("--profile", type=timing, default=DEFAULT_PROFILE, metavar="NAME|PATH", help=known_profiles())
    p.add_argument("--speed", type=above_zero, default=1.0, help="divides every time but the shutdown's")
    p.add_argument("--start-seconds", type=at_least(0), default=2.0, help="until the port is open")
    fixed = p.add_argument_group("constant times instead of a profile's; one of them is enough")
    fixed.add_argument("--ttft-ms", type=at_least(0), help="from admission to the first token (120)")
    fixed.add_argument("--image-ms", type=at_least(0), help="what each image or video adds to that (60)")
    fixed.add_argument("--tpot-ms", type=at_least(0), help="from one token to the next (12)")
    p.add_argument(
        "--enable-sleep-mode", action="store_true", help="/sleep and /wake_up; as in vLLM with VLLM_SERVER_DEV_MODE=1"
    )
    p.add_argument("--enable-server-load-tracking", action="store_true", help="/load counts; without it it says 0")
    p.add_argument("--enable-log-requests", action="store_true", help="a log line for each request that comes")
    p.add_argument("--faults", action="store_true", help="open /emulator/faults, for everybody who reaches the port")
    p.add_argument("--fault", type=fault, action="append", default=[], metavar="JSON", help='{"kind": ...}, at once')
    p.add_argument("--shutdown-timeout", type=at_least(0), default=0.0, help="seconds to finish after SIGTERM")
    return p


def parse(arguments: Sequence[str]) -> EmulatorOptions:
    """Read the command line. Exits 2 with a sentence when it is wrong."""
    a = parser().parse_args(arguments)
    unlimited = 1_000_000_000
    if a.kv_cache_tokens and a.kv_cache_tokens < a.max_model_len:
        parser().error(
            f"--kv-cache-tokens={a.kv_cache_tokens} holds no sequence of --max-model-len={a.max_model_len}. Lower the "
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
        # vLLM would refuse to start; here the profile may be of a smaller card than the one that is played.
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
        # vLLM takes these from its environment too, so one setting serves every flavour.
        keep_alive_s=int(os.environ.get("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", "5")),
        max_image_pixels=int(os.environ.get("VLLM_MAX_IMAGE_PIXELS", "178956970")),
        max_answers=int(os.environ.get("VLLM_MAX_N_SEQUENCES", "16384")),
        max_completion_prompts=int(os.environ.get("VLLM_MAX_COMPLETION_PROMPTS", "1024")),
        load_tracking=a.enable_server_load_tracking,
        log_requests=a.enable_log_requests,
    )


def constants(a: argparse.Namespace) -> ConstantTimes | None:
    """None unless one of them was given."""
    given = (a.ttft_ms, a.image_ms, a.tpot_ms)
    if all(value is None for value in given):
        return None
    times = (default if value is None else value for value, default in zip(given, (120.0, 60.0, 12.0), strict=True))
    return ConstantTimes(*(value / 1000 / a.speed for value in times))
