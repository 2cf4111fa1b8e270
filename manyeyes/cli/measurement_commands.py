"""Commands that run other programs of this repository. Arguments, including `--help`, are passed through unchanged."""

import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import typer

from manyeyes.cli.invocation import DEFAULT_CONFIG, STARTED_IN, enter_checkout

PACKAGE_OF_GROUP = {"loadtest": "locust", "test": "pytest"}
"""A package that only this group of requirements/ installs."""


@dataclass(frozen=True)
class Program:
    """A module that replaces this process."""

    command: str
    module: str
    help: str
    group: str = "loadtest"
    arguments: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    """Programs of Debian and Prometheus that are downloaded into build/ first."""
    annotates_cluster: bool = False
    """It writes annotations into this host's cluster, unless --url names another cluster."""


PROGRAMS = (
    Program("loadtest", "loadtest", "Run a load test through the gateway, without Locust's page.", annotates_cluster=True),
    Program("scaling-report", "loadtest.scaling_report", "Measure how throughput scales with GPUs.", "test", needs=("nginx",), annotates_cluster=True),
    Program("compare", "loadtest.compare", "Compare two load tests and show which differences are noise."),
    Program("plan", "manyeyes.planner", "Estimate how many GPUs a load needs.", arguments=("plan",)),
    Program("plan-policies", "manyeyes.planner", "Compare balancing policies on thousands of simulated engines.", arguments=("policies",)),
    Program("calibrate", "manyeyes.calibration", "Measure the timing of one engine."),
    Program("chaos", "benchmarks.chaos", "Inject every fault into the running cluster, under load."),
    Program("soak", "benchmarks.chaos.soak", "Run an hour of load with a fault every minute."),
    Program("replay", "manyeyes.controller.autoscaling.replay", "Show how autoscaling would handle a recorded load.", "test"),
)  # fmt: skip
BENCHMARKS = (
    Program("gateway", "benchmarks", "Compare this gateway with others (2 hours).", "test", needs=("nginx",)),
    Program("gateway-report", "benchmarks.report", "Write the pages for a folder of raw results.", "test"),
    Program("controller", "benchmarks.controller", "Measure the cost of the controller (25 minutes).", "test"),
    Program("monitoring", "benchmarks.monitoring", "Measure the cost of Prometheus and the exporters (20 minutes).", "test", needs=("nginx", "prometheus")),
    Program("planner", "manyeyes.planner.plan_validation", "Compare the planner with emulated engines (35 minutes).", "test", needs=("nginx",)),
    Program("emulator", "manyeyes.calibration.emulator_validation", "Compare the emulator with the calibrated engine.", "test"),
)  # fmt: skip


def add_measurement_commands(app: typer.Typer, panel: str) -> None:
    """Adds each program as a command of `app`, and the benchmarks under `bench`."""
    bench = typer.Typer(no_args_is_help=True, help="Measure costs, and the errors of estimates.")
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
    """Replaces this process with the program, and so does not return. Raises CliError."""
    enter_checkout(DEFAULT_CONFIG)
    require_group(program.command, program.group)
    if Path.cwd() != STARTED_IN:
        arguments = [absolute_path(argument) for argument in arguments]
    is_help = {"-h", "--help"} & {*arguments}
    for name in () if is_help else program.needs:
        subprocess.run([f"manyeyes/devcluster/fetch/{name}", f"build/{name}"], check=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (".", os.environ.get("PYTHONPATH"))))}
    if program.annotates_cluster and not any(argument.split("=")[0] == "--url" for argument in arguments):
        _add_admin_key(environment)
    os.execve(sys.executable, [sys.executable, "-m", program.module, *program.arguments, *arguments], environment)


def require_group(command: str, group: str) -> None:
    """Raises CliError if the packages of `group` are not installed."""
    from manyeyes.cli.terminal import CliError

    if importlib.util.find_spec(PACKAGE_OF_GROUP[group]) is None:
        raise CliError(
            f"`manyeyes {command}` needs packages that are not installed ({PACKAGE_OF_GROUP[group]} is missing). "
            f"Run requirements/environment {group}, then .venv/bin/manyeyes {command}."
        )


def absolute_path(argument: str) -> str:
    """Makes a path, also in an option, absolute from the folder where the command was called. Other words are
    unchanged."""
    option, equals, value = argument.rpartition("=")
    file = STARTED_IN / value
    return f"{option}{equals}{file}" if os.sep in value and file.parent.is_dir() else argument


def _add_admin_key(environment: dict[str, str]) -> None:
    """Passes the admin key in the environment, where a process list does not show it. Another cluster never gets it."""
    from manyeyes.cli import secrets
    from manyeyes.cli.terminal import CliError

    if "MANYEYES_ADMIN_KEY" not in environment:
        try:
            environment["MANYEYES_ADMIN_KEY"] = secrets.read_admin_key()
        except CliError:
            environment["MANYEYES_ADMIN_KEY"] = ""
