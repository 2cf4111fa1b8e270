"""`tests/run alert-drill`: every fault in turn on one cluster of processes; a line of JSON each, and the table of docs/benchmarks/alert-drill.md."""

import argparse
import contextlib
import dataclasses
import json
import sys
import tempfile
from pathlib import Path

from manyeyes.devcluster.cluster import local_cluster
from manyeyes.devcluster.monitored_cluster import monitored_cluster
from tests.alert_drill import faults, table

LOGS = Path("build/alert-drill.log")
"""What the parts said."""


def say(line: str) -> None:
    print(line, file=sys.__stdout__, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.alert_drill", description=__doc__)
    parser.add_argument("--out", type=Path, default=table.RAW)
    parser.add_argument("--only", help="a fault by name")
    arguments = parser.parse_args()
    chosen = [one for one in faults.FAULTS if arguments.only in (None, one.name)]
    made, wrong = [], 0
    with (
        LOGS.open("w") as logs,
        contextlib.redirect_stdout(logs),
        tempfile.TemporaryDirectory() as folder,
        local_cluster(Path(folder), faults.document(), engine_flags=("--faults",)) as running,
    ):
        running.all_up(set(faults.ENGINES))
        with monitored_cluster(running) as beside:
            for one in chosen:
                try:
                    line = dataclasses.asdict(faults.drill(beside, one))
                except AssertionError as error:
                    line = {"fault": one.name, "trouble": str(error)[:400]}
                wrong += "trouble" in line or bool(line["others"])
                say(json.dumps(line))
                made.append(line)
            if trouble := beside.failed_rules():
                say("\n  ".join(["rules that could not be worked out:", *trouble]))
                wrong += 1
    if arguments.only is None and not wrong:
        arguments.out.write_text("".join(json.dumps(line) + "\n" for line in made))
        table.write()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
