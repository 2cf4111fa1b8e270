"""`python -m benchmarks`: compares gateways on the same work. `--help` lists the options; README.md explains the results."""

import argparse
import json
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks import gateways as all_gateways
from benchmarks import load as works
from benchmarks.gateways.gateway import BUILD, BenchmarkedGateway, NotInstalled
from benchmarks.gateways.routers import NOT_RUN
from benchmarks.runner import FULL, QUICK, BenchmarkSelection, plan_jobs, run_jobs
from loadtest.host_info import read_host_info
from loadtest.result_files import shown, write_document

KINDS = ("work", "cpu", "latency", "stream")


def split_names(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in split_names(text))


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m benchmarks", description="Compares gateways on the same seeded work.")
    p.add_argument(
        "--gateways", type=split_names, default=(), help="parts of names, separated by commas; default all (see --list)"
    )
    p.add_argument("--measure", type=split_names, default=KINDS, help=f"of {','.join(KINDS)}; default all")
    p.add_argument("--work", type=split_names, default=tuple(works.ALL), help=f"of {','.join(works.ALL)}; default all")
    p.add_argument(
        "--engines", type=numbers, default=(3, 8), help="numbers of engines; all measurements run on the first"
    )
    p.add_argument("--headers", type=numbers, default=(0, 1, 2), help="how many session headers clients send")
    p.add_argument("--repeats", type=int, default=3)
    p.add_argument(
        "--quick",
        action="store_true",
        help="a third of the users, one repeat: shows that everything works; the figures have no meaning",
    )
    p.add_argument("--seconds", type=float, help="for each size in cpu and latency; default 6")
    p.add_argument("--users", type=float, help="fraction of the users of each work; default 1")
    p.add_argument("--speed", type=float, default=1.0, help="engines' clock relative to the wall clock; default 1")
    p.add_argument("--user-processes", type=int, default=1, help="number of processes for the users")
    p.add_argument("--out", type=Path, help="folder of raw results; an existing run is continued")
    p.add_argument("--list", action="store_true", help="print names, versions and settings of all gateways and exit")
    return p


def installed(names: Sequence[str]) -> tuple[list[BenchmarkedGateway], dict[str, str], dict[str, str]]:
    """Returns the gateways whose names contain one of `names`, their versions, and why other gateways are missing."""
    chosen = [g for g in all_gateways.ALL if not names or any(n.lower() in g.name.lower() for n in names)]
    available, versions, missing = [], {}, dict(NOT_RUN)
    for gateway in chosen:
        try:
            versions[gateway.name] = gateway.version()
            available.append(gateway)
        except NotInstalled as error:
            missing[gateway.name] = f"not installed: {error}"
            print(f"  no  {gateway.name}: {error}", flush=True)
    return available, versions, missing


def main(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    # On SIGTERM stop everything that was started, as on Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    available, versions, missing = installed(options.gateways)
    if options.list:
        for gateway in available:
            print(f"{gateway.name} ({versions[gateway.name]})")
            for setting in gateway.settings:
                print(f"    {setting.name}: {setting.reason} [{setting.source}]")
        return 0
    extent = QUICK if options.quick else FULL
    extent = replace(extent, speed=options.speed, user_processes=options.user_processes)
    if options.seconds:
        extent = replace(extent, seconds=options.seconds)
    if options.users:
        extent = replace(extent, users_share=options.users)
    repeats = 1 if options.quick else options.repeats
    jobs = plan_jobs(
        BenchmarkSelection(options.measure, options.work, options.engines, options.headers, repeats), available
    )
    out = (options.out or BUILD / "results" / time.strftime("%Y%m%d-%H%M%S")).resolve()
    out.mkdir(parents=True, exist_ok=True)
    metadata = {
        "machine": asdict(read_host_info(shlex.join(["python", "-m", "benchmarks", *arguments]))),
        "extent": asdict(extent),
        "quick": options.quick,
        "versions": versions,
        "missing": missing,
    }
    file = out / "about.json"
    if file.exists():
        earlier = json.loads(file.read_text())
        if earlier["extent"] != metadata["extent"]:
            print(f"{file} was made with {earlier['extent']}, this run has {metadata['extent']}. Use another --out.")
            return 2
        metadata["versions"] = earlier["versions"] | versions
        metadata["missing"] = earlier["missing"] | missing
    write_document(file, metadata)
    run_jobs(jobs, {gateway.name: gateway for gateway in available}, extent, out)
    print(f"raw results: {shown(out)}/runs.jsonl; the report: python -m benchmarks.report {shown(out)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
