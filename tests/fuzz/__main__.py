"""`python -m tests.fuzz TARGET [--minutes N]`: fuzzes one target, prints counts, and saves each finding in the corpus.

Without a target it lists them. Exit code 1 when there was a finding. With `--coverage`, atheris (the group `fuzz` of
pyproject.toml) changes the bytes of the corpus by the lines that they reach, saves inputs that reach others, and ends at
the first finding.
"""

import argparse
import hashlib
import logging
import sys
import tempfile
import time
import traceback
from pathlib import Path

import structlog
from hypothesis import HealthCheck, Phase, given, settings

CORPUS = Path(__file__).parent / "corpus"
NAMES = ("config", "datagrams", "registry", "dns", "answers", "addresses", "state")
BATCH = 500
MAX_FINDINGS = 20


def fuzz(name: str, seconds: float) -> tuple[int, dict[str, str]]:
    """Returns the number of inputs, and each finding with its file. A finding is one line of code that raised."""
    from tests.fuzz.targets import TARGETS

    target = TARGETS[name]
    count = 0
    findings: dict[str, str] = {}
    end_s = time.monotonic() + seconds

    @settings(
        max_examples=BATCH, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(target.inputs)
    def run_batch(raw: bytes) -> None:
        nonlocal count
        if time.monotonic() > end_s or len(findings) >= MAX_FINDINGS:
            return
        count += 1
        try:
            target.check(raw)
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{type(error).__name__} {Path(frame.filename).name}:{frame.lineno}"
            if place not in findings:
                file = CORPUS / name / hashlib.sha256(raw).hexdigest()[:16]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(raw)
                findings[place] = f"{file.name}: {' '.join(str(error).split())[:200]}"

    while time.monotonic() < end_s and len(findings) < MAX_FINDINGS:
        run_batch()
    return count, findings


def fuzz_by_coverage(name: str, seconds: float) -> None:
    """Does not return: libFuzzer ends the process and prints its counts."""
    import atheris

    with atheris.instrument_imports(include=["manyeyes", "yaml"]):
        from tests.fuzz.targets import SEEDS, TARGETS
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    seeds = Path(tempfile.mkdtemp(prefix="manyeyes-seeds-"))
    for number, seed in enumerate(SEEDS[name]):
        (seeds / str(number)).write_bytes(seed)
    options = [f"-max_total_time={seconds:.0f}", "-max_len=8192", f"-artifact_prefix={folder}/", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, str(folder), str(seeds)], TARGETS[name].check)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", nargs="?", choices=NAMES)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--coverage", action="store_true")
    arguments = parser.parse_args()
    if arguments.target is None:
        print("\n".join(NAMES))
        return 0
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    if arguments.coverage:
        fuzz_by_coverage(arguments.target, 60 * arguments.minutes)
    count, findings = fuzz(arguments.target, 60 * arguments.minutes)
    print(f"{arguments.target}: {count} inputs in {arguments.minutes:g} minutes, {len(findings)} findings")
    for place, file in findings.items():
        print(f"  {place}  {file}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
