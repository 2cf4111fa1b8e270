"""`python -m manyeyes.calibration --url URL`: measures one engine in a few minutes and writes its timing profile.

Exit codes: 0 written, 1 the engine aborted or there are too few measurements, 2 an invalid value or an unreachable engine,
130 Ctrl-C (the measurements so far are saved).
"""

import json
import os
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from loadtest.host_info import query_gpus, read_host_info
from loadtest.run import stepwise
from manyeyes.arguments import COUNT, OneLineParser
from manyeyes.calibration.engine import CannotMeasure, MeasuredEngine
from manyeyes.calibration.measure import BATCHES, Measurement, MeasurementSeries, wait_until_idle
from manyeyes.calibration.profile_fit import FittedProfile, fit_profile, profile_yaml
from manyeyes.simulator import profile

QUIET_HELP = (
    "before each part wait, up to 10 minutes, until less than this fraction of all cores is in use; above 1: no wait"
)


def parser() -> OneLineParser:
    p = OneLineParser("calibrate", prog="python -m manyeyes.calibration", description=__doc__)
    p.add_argument("--url", default="http://127.0.0.1:8000", help="address of one engine, not of the gateway")
    p.add_argument("--model", default="", help="served model name; default: the first model")
    p.add_argument(
        "--out",
        type=Path,
        default=Path("build/calibrate/profile.yaml"),
        help="file for the profile; the measurements are stored next to it",
    )
    p.add_argument("--device", default="", help="hardware of the engine; default: from nvidia-smi or /proc/cpuinfo")
    p.add_argument(
        "--repeats", type=COUNT, default=7, help="of each measurement; the first quartile of the times is used"
    )
    p.add_argument(
        "--together",
        type=COUNT,
        default=BATCHES[-1],
        help="maximum number of concurrent requests: at most the engine's --max-num-seqs",
    )
    p.add_argument("--batched-tokens", type=COUNT, default=4096, help="the engine's --max-num-batched-tokens")
    p.add_argument("--quiet", type=float, default=2.0, help=QUIET_HELP)
    p.add_argument("--base", default="rtx4090-qwen3-vl-4b-fp8", help="profile with the numbers that are not measured")
    return p


def main(arguments: Sequence[str]) -> int:
    a = parser().parse_args(arguments)
    try:
        base = profile.load_profile(a.base)
        a.out.parent.mkdir(parents=True, exist_ok=True)
        engine = MeasuredEngine(a.url, a.model, os.environ.get("MANYEYES_API_KEY", ""))
        engine.identify()
    except (ValueError, OSError, CannotMeasure) as error:
        print(f"calibrate: {error}", file=sys.stderr)
        return 2
    batches = [batch for batch in BATCHES if batch <= a.together] or [1]
    measurements = MeasurementSeries(engine, a.repeats, batches, a.batched_tokens)
    code, raw = measure(measurements, a.quiet), a.out.with_suffix(".jsonl")
    raw.write_text("".join(json.dumps(measurement.line()) + "\n" for measurement in measurements.results))
    if code:
        print(f"calibrate: incomplete, no profile was written. The measurements so far are in {raw}.", file=sys.stderr)
        return code
    device = a.device or detect_device()
    try:
        fitted = fit_profile(measurements.results, device, engine.model, engine.kv_cache_tokens(), base)
    except ValueError as error:
        print(f"calibrate: {error}. The measurements are in {raw}; try more --repeats.", file=sys.stderr)
        return 1
    date = datetime.now(UTC).date().isoformat()
    command = f"python -m manyeyes.calibration {shlex.join(arguments)}".strip()
    a.out.write_text(profile_yaml(fitted, device, f"vLLM {engine.version()}", date, command))
    print_profile(fitted, measurements, a.out, raw)
    return 0


def measure(measurements: MeasurementSeries, quiet: float) -> int:
    """Runs all measurements. Returns 0, or the exit code of an error, which is printed."""
    try:
        for _, step in stepwise(measurements.steps(), lambda item: item[0]):
            wait_until_idle(quiet)
            step()
    except CannotMeasure as error:
        print(f"calibrate: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def detect_device() -> str:
    """The GPU's name from nvidia-smi, or the CPU's name."""
    if gpus := query_gpus("name,memory.total"):
        name, _, memory = gpus[0].partition(",")
        return f"{name.strip()} {round(float(memory) / 1024)}GB" if memory else name.strip()
    host = read_host_info("")
    return f"CPU: {host.cpu}, {host.cores} cores"


def print_profile(fitted: FittedProfile, measurements: MeasurementSeries, out: Path, raw: Path) -> None:
    for name, source in fitted.sources.items():
        print(f"  {name:19} {getattr(fitted.profile, name):>10g}   {source}")
    for name, measured_s, predicted_s in fitted.checks:
        print(f"  check, not fitted: {name}: measured {1e3 * measured_s:.1f} ms, predicted {1e3 * predicted_s:.1f} ms")
    print(f"  median spread of the repeats, (largest - smallest) / first quartile: {spread(measurements.results):.0%}")
    caches = [
        ("prefix cache", measurements.prefix_cache),
        ("cache of preprocessed images", measurements.processor_cache),
    ]
    print("  " + "; ".join(f"{name}: {'on' if on else 'off'}" for name, on in caches))
    print(f"Written: {out}, {raw}. Try it: python -m manyeyes.emulator --served-model-name m --profile {out}")


def spread(measurements: Sequence[Measurement]) -> float:
    spreads = sorted(
        (max(measurement.times_s) - min(measurement.times_s)) / measurement.first_quartile_s
        for measurement in measurements
        if len(measurement.times_s) > 1
    )
    return spreads[len(spreads) // 2] if spreads else 0.0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
