"""`python -m manyeyes.calibration --url URL`: measures one engine in a few minutes and writes its timing profile.

Exit codes: 0 written, 1 the engine broke off or too little could be measured, 2 a wrong value or an engine that cannot be
asked, 130 Ctrl-C (what was measured is kept).
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

QUIET = "wait (10 minutes at most) before each part until others use less than this share of all cores; above 1: never"


def parser() -> OneLineParser:
    p = OneLineParser("calibrate", prog="python -m manyeyes.calibration", description=__doc__)
    p.add_argument("--url", default="http://127.0.0.1:8000", help="one engine's own address, not the gateway's")
    p.add_argument("--model", default="", help="as it is served; without it, the first one")
    p.add_argument(
        "--out", type=Path, default=Path("build/calibrate/profile.yaml"), help="the profile; measurements go beside it"
    )
    p.add_argument("--device", default="", help="what it runs on; without it, as nvidia-smi or /proc/cpuinfo say")
    p.add_argument("--repeats", type=COUNT, default=7, help="of each measurement; the quicker quarter counts")
    p.add_argument(
        "--together", type=COUNT, default=BATCHES[-1], help="most requests at once: the engine's --max-num-seqs or less"
    )
    p.add_argument("--batched-tokens", type=COUNT, default=4096, help="the engine's --max-num-batched-tokens")
    p.add_argument("--quiet", type=float, default=2.0, help=QUIET)
    p.add_argument("--base", default="rtx4090-qwen3-vl-4b-fp8", help="the profile that gives what is not measured")
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
    batches = [one for one in BATCHES if one <= a.together] or [1]
    measurements = MeasurementSeries(engine, a.repeats, batches, a.batched_tokens)
    code, raw = measure(measurements, a.quiet), a.out.with_suffix(".jsonl")
    raw.write_text("".join(json.dumps(one.line()) + "\n" for one in measurements.seen))
    if code:
        print(f"calibrate: what was measured is in {raw}; a profile needs all of it", file=sys.stderr)
        return code
    device = a.device or found_device()
    try:
        found = fit_profile(measurements.seen, device, engine.model, engine.kv_cache_tokens(), base)
    except ValueError as error:
        print(f"calibrate: {error}. What was measured is in {raw}; try more --repeats.", file=sys.stderr)
        return 1
    date = datetime.now(UTC).date().isoformat()
    command = f"python -m manyeyes.calibration {shlex.join(arguments)}".strip()
    a.out.write_text(profile_yaml(found, device, f"vLLM {engine.version()}", date, command))
    print_profile(found, measurements, a.out, raw)
    return 0


def measure(measurements: MeasurementSeries, quiet: float) -> int:
    """0, or the exit code of what went wrong, which is told."""
    try:
        for _, step in stepwise(measurements.steps(), lambda one: one[0]):
            wait_until_idle(quiet)
            step()
    except CannotMeasure as error:
        print(f"calibrate: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def found_device() -> str:
    """The GPU's name as nvidia-smi has it, else the CPU's."""
    if gpus := query_gpus("name,memory.total"):
        name, _, memory = gpus[0].partition(",")
        return f"{name.strip()} {round(float(memory) / 1024)}GB" if memory else name.strip()
    here = read_host_info("")
    return f"CPU: {here.cpu}, {here.cores} cores"


def print_profile(found: FittedProfile, measurements: MeasurementSeries, out: Path, raw: Path) -> None:
    for name, source in found.sources.items():
        print(f"  {name:19} {getattr(found.profile, name):>10g}   {source}")
    for name, measured_s, said_s in found.checks:
        print(f"  check, not fitted: {name}: measured {1e3 * measured_s:.1f} ms, by the profile {1e3 * said_s:.1f} ms")
    print(f"  spread of repeats, in the median (largest - smallest) / quicker quarter: {spread(measurements.seen):.0%}")
    caches = [
        ("prefix cache", measurements.prefix_cache),
        ("cache of preprocessed pictures", measurements.processor_cache),
    ]
    print("  " + "; ".join(f"{name}: {'answers' if on else 'off'}" for name, on in caches))
    print(f"Written: {out}, {raw}. Try it: python -m manyeyes.emulator --served-model-name m --profile {out}")


def spread(seen: Sequence[Measurement]) -> float:
    found = sorted((max(one.times_s) - min(one.times_s)) / one.quick_s for one in seen if len(one.times_s) > 1)
    return found[len(found) // 2] if found else 0.0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
