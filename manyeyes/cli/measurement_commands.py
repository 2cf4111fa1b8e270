"""Commands that are programs of their own, with packages of other groups: each gets its arguments as they are, `--help` too."""

import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import typer

from manyeyes.cli.invocation import DEFAULT_CONFIG, STARTED_IN, enter_checkout

PACKAGE_OF_GROUP = {"loadtest": "locust", "test": "pytest"}
"""One that only this group of requirements/ brings."""


@dataclass(frozen=True)
class Program:
    """A module that is run in place of this process."""

    command: str
    module: str
    help: str
    group: str = "loadtest"
    arguments: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    """Programs of Debian and Prometheus that are fetched into build/ first."""
    marks_cluster: bool = False
    """It writes annotations into this host's cluster, unless --url names another one."""


PROGRAMS = (
    Program("loadtest", "loadtest", "Users through the gateway, without a page.", marks_cluster=True),
    Program("scaling-report", "loadtest.scaling_report", "What did more GPUs bring?", "test", needs=("nginx",), marks_cluster=True),
    Program("compare", "loadtest.compare", "Two runs beside each other, and what of it is noise."),
    Program("plan", "manyeyes.planner", "How many GPUs? An estimate.", arguments=("plan",)),
    Program("plan-policies", "manyeyes.planner", "Balancing policies on thousands of simulated engines.", arguments=("policies",)),
    Program("calibrate", "manyeyes.calibration", "Measure one engine's timing."),
    Program("chaos", "benchmarks.chaos", "Every fault on the running cluster, under load."),
    Program("soak", "benchmarks.chaos.soak", "An hour of load with a fault every minute."),
    Program("replay", "manyeyes.controller.autoscaling.replay", "What scaling would have done with a recorded load.", "test"),
)  # fmt: skip
BENCHMARKS = (
    Program("gateway", "benchmarks", "Other gateways beside this one: 2 hours.", "test", needs=("nginx",)),
    Program("gateway-report", "benchmarks.report", "The pages of a folder of raw results.", "test"),
    Program("controller", "benchmarks.controller", "What the controller costs: 25 minutes.", "test"),
    Program("monitoring", "benchmarks.monitoring", "What Prometheus and the exporters cost: 20 minutes.", "test", needs=("nginx", "prometheus")),
    Program("planner", "manyeyes.planner.plan_validation", "The planner beside emulated engines: 35 minutes.", "test", needs=("nginx",)),
    Program("emulator", "manyeyes.calibration.emulator_validation", "The emulator beside the engine that was calibrated.", "test"),
)  # fmt: skip


def add_measurement_commands(app: typer.Typer, panel: str) -> None:
    """Each program as a command of `app`, and the benchmarks under `bench`."""
    bench = typer.Typer(no_args_is_help=True, help="What it costs, and how far estimates are off.")
    for program in PROGRAMS:
        _add(app, program, panel)
    for program in BENCHMARKS:
        _add(bench, program, None)
    app.add_typer(bench, name="bench", rich_help_panel=panel)


def _add(app: typer.Typer, program: Program, panel: str | None) -> None:
    def command(context: typer.Context) -> None:
        run_program(program, context.args)

    settings = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
    app.command(program.command, help=program.help, rich_help_panel=panel, context_settings=settings)(command)


def run_program(program: Program, arguments: list[str]) -> None:
    """Does not return: the program takes this process over, with its signals and its exit code. Raises CliError."""
    enter_checkout(DEFAULT_CONFIG)
    require_group(program.command, program.group)
    if Path.cwd() != STARTED_IN:
        arguments = [from_root(word) for word in arguments]
    is_help = {"-h", "--help"} & {*arguments}
    for name in () if is_help else program.needs:
        subprocess.run([f"manyeyes/devcluster/fetch/{name}", f"build/{name}"], check=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (".", os.environ.get("PYTHONPATH"))))}
    if program.marks_cluster and not any(word.split("=")[0] == "--url" for word in arguments):
        _add_admin_key(environment)
    os.execve(sys.executable, [sys.executable, "-m", program.module, *program.arguments, *arguments], environment)


def require_group(command: str, group: str) -> None:
    """Raises CliError where the packages of `group` are not installed."""
    from manyeyes.cli.terminal import CliError

    if importlib.util.find_spec(PACKAGE_OF_GROUP[group]) is None:
        raise CliError(
            f"`manyeyes {command}` needs packages that are not installed here ({PACKAGE_OF_GROUP[group]} is missing). "
            f"Run requirements/environment {group}, then .venv/bin/manyeyes {command}."
        )


def from_root(word: str) -> str:
    """A path (of an option, too) that was given from the folder of the start; anything else as it is."""
    option, equals, value = word.rpartition("=")
    file = STARTED_IN / value
    return f"{option}{equals}{file}" if os.sep in value and file.parent.is_dir() else word


def _add_admin_key(environment: dict[str, str]) -> None:
    """In the environment: no list of processes shows it there. A cluster elsewhere never gets this one's."""
    from manyeyes.cli import secrets
    from manyeyes.cli.terminal import CliError

    if "MANYEYES_ADMIN_KEY" not in environment:
        try:
            environment["MANYEYES_ADMIN_KEY"] = secrets.read_admin_key()
        except CliError:
            environment["MANYEYES_ADMIN_KEY"] = ""
