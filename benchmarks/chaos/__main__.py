"""`python -m benchmarks.chaos`: injects every fault into the running cluster, under load. docs/benchmarks/chaos.md explains the report.

`manyeyes chaos` runs it. Exit codes: 0 every fault stayed within its allowed cost; 1 a fault did not, or the run is partial;
2 nothing was done; 130 Ctrl-C.
"""

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.chaos import experiment, report
from benchmarks.chaos.experiment import ChaosTarget, UnfitTarget, exit_code, find_target, run_restored
from benchmarks.chaos.faults import Fault, choose_faults, fault_table
from benchmarks.chaos.load import LoadUsers, RetryingClient
from benchmarks.chaos.report import FaultResult
from loadtest import users
from loadtest.gateway_client import GatewayUnusable
from loadtest.host_info import read_host_info
from loadtest.result_files import ROOT, shown, write_document
from loadtest.run_spec import KEY
from manyeyes.cli.terminal import print_error, print_line, print_ok, print_warning, step
from manyeyes.config.loader import ConfigError

COMMAND = "python -m benchmarks.chaos"


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="manyeyes chaos", description="Injects faults into the running cluster, under load."
    )
    p.add_argument("--config", type=Path, default=Path("config/cluster.yaml"))
    p.add_argument("--faults", default="", help="names separated by commas, see `--list`; default: all")
    p.add_argument("--list", action="store_true", help="print the faults for this cluster and exit")
    p.add_argument("--users", type=int, default=20, help="concurrent users, default 20")
    p.add_argument("--scenario", default="chat", help=f"{', '.join(users.ALL)}, or a mix; default chat")
    p.add_argument("--model", default="", help="default: the gateway's first model")
    p.add_argument(
        "--watch", type=float, default=10.0, help="seconds to measure before and after each fault, default 10"
    )
    p.add_argument("--confirm", default="", help="yes: also on a cluster whose engines are not emulated")
    p.add_argument("--out", type=Path, help="default build/chaos/<date>")
    return p


def main(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    try:
        target = find_target(
            options.config, os.environ.get(KEY, ""), options.model, options.confirm == "yes" or options.list
        )
        mix = users.mix(options.scenario)
        faults = choose_faults(fault_table(target.containers.parts()), options.faults)
    except (UnfitTarget, GatewayUnusable, ConfigError, ValueError) as error:
        print_error(str(error))
        return 2
    if options.list:
        for fault in faults:
            print_line(f"  {fault.name:24} {fault.title}")
        return 0
    folder = (options.out or ROOT / "build/chaos" / time.strftime("%Y%m%d-%H%M%S")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    load_users = LoadUsers(target.settings, mix)
    outcomes: list[FaultResult] = []
    partial = run_restored(target.containers, lambda: _run(target, load_users, options, faults, outcomes))
    chaos_run = report.ChaosRun(
        cluster=target.cluster.name,
        emulated=target.emulated,
        load=f"{options.users} users, scenario {options.scenario}, model {target.settings.model}, {len(target.engines)} engines; one run of each fault",
        machine=str(read_host_info("")),
        command=shlex.join([*COMMAND.split(), *arguments]),
        partial=partial,
    )
    (folder / "chaos.md").write_text(report.markdown(chaos_run, outcomes))
    (folder / "chaos.html").write_text(report.page(chaos_run, outcomes))
    write_document(folder / "chaos.json", {"about": chaos_run, "outcomes": outcomes})
    print_line(f"      {shown(folder)}: chaos.html, chaos.md, chaos.json")
    return exit_code(partial, any(outcome.broken for outcome in outcomes))


def _run(
    target: ChaosTarget,
    users: LoadUsers,
    options: argparse.Namespace,
    faults: Sequence[Fault],
    outcomes: list[FaultResult],
) -> None:
    retrying_client = RetryingClient(target.settings)
    load = experiment.FaultExperiment(
        target.containers, target.gateway, users, retrying_client, target.engines, options.watch
    )
    users.start(options.users)
    retrying_client.start()
    try:
        for number, fault in enumerate(faults, start=1):
            with step(f"{number} of {len(faults)}: {fault.title}") as current:
                outcome = load.measure(fault, lambda note, current=current: setattr(current, "note", note))  # type: ignore[misc]
                outcomes.append(outcome)
                current.outcome = (
                    f"{fault.name}: {outcome.answered} answered, {outcome.failed} failed, {outcome.cut} cut, "
                    f"recovered after {outcome.whole_again_s:.1f} s"
                )
            if outcome.broken:
                print_warning(f"{fault.name}: {outcome.broken}")
    finally:
        users.stop()
        retrying_client.stop()
    print_ok("the cluster is restored")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
