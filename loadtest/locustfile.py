"""Entry point for Locust: `locust -f loadtest/locustfile.py`.

With a run specification (run_spec.py) it executes that run and exits. Without a specification it serves Locust's web page,
where the operator chooses the number of users and the scenario.
"""

import csv
import os
import sys
import time
from pathlib import Path
from typing import Any

import gevent
import orjson
from locust import events, runners
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import MasterRunner, Runner, WorkerRunner
from locust.stats import PERCENTILES_TO_REPORT, StatsCSV

from loadtest import run_spec as orders
from loadtest import users
from loadtest.generator import results
from loadtest.generator.loops import ArrivalQueue, build_load_shape, closed_loop_user, open_loop_user
from loadtest.generator.results import ResultWriter, SampleReporter
from loadtest.run_spec import ORDER, RunSpec
from loadtest.statistics import Window, figures

runners.WORKER_REPORT_INTERVAL = 1.0  # a search needs the latest samples
ARRIVALS = "manyeyes_arrivals"
FIELD = "manyeyes"

reporter = SampleReporter()
dues = ArrivalQueue()


def _from_page() -> RunSpec:
    """Defaults for Locust's web page, whose fields are read when a test starts."""
    return RunSpec(
        url=os.environ.get("MANYEYES_GATEWAY_URL", "http://localhost:8080"),
        model=os.environ.get("MANYEYES_MODEL", "auto"),
        scenario="image",
        folder="",
        processes=int(os.environ.get("MANYEYES_LOADTEST_PROCESSES", "1")),
    )


ordered = ORDER in os.environ
order = orders.read_run_spec(Path(os.environ[ORDER])) if ordered else _from_page()


def _give_up() -> None:
    """Result files cannot be written: reports it immediately, because Locust's own report fails too, and quits."""
    _say({"problem": writer.problem})
    if reporter.environment and reporter.environment.runner:
        gevent.spawn(reporter.environment.runner.quit)


writer = ResultWriter(Path(order.folder) if ordered else None, _give_up)


def _send(arrivals: list[tuple[float, int]], forget: bool) -> None:
    runner = reporter.environment.runner if reporter.environment else None
    if isinstance(runner, MasterRunner):
        runner.send_message(ARRIVALS, {"dues": arrivals, "forget": forget})
    else:
        dues.add(arrivals, forget)


if ordered:
    mix = users.mix(order.scenario)
    # Locust finds these classes among the names of this module.
    TheUser = (
        open_loop_user(order, mix, reporter, dues) if order.loop == "open" else closed_loop_user(order, mix, reporter)
    )
    TheShape = build_load_shape(order, writer, _send)
else:
    TheUser = results.web_user(order, reporter)


@events.init_command_line_parser.add_listener
def _arguments(parser: LocustArgumentParser) -> None:
    if not ordered:
        results.add_arguments(parser, order)


@events.init.add_listener
def _begin(environment: Environment, **_: Any) -> None:
    reporter.environment = environment
    runner = environment.runner
    gevent.spawn(reporter.watch)
    if isinstance(runner, WorkerRunner):
        runner.register_message(ARRIVALS, _arrive)
    elif runner is not None:
        gevent.spawn(_report, runner)
    if environment.web_ui and not isinstance(runner, WorkerRunner):
        results.extend_web_ui(environment, writer)


def _arrive(msg: Any, **_: Any) -> None:
    dues.add([(due_s, number) for due_s, number in msg.data["dues"]], msg.data["forget"])


@events.report_to_master.add_listener
def _to_master(client_id: str, data: dict[str, Any]) -> None:
    data[FIELD] = reporter.collect()


@events.worker_report.add_listener
def _from_worker(client_id: str, data: dict[str, Any]) -> None:
    if FIELD in data:
        writer.add(client_id, data[FIELD])


@events.test_start.add_listener
def _start(environment: Environment, **_: Any) -> None:
    if not ordered:
        writer.samples.clear()
        environment.host = order.url  # the page shows where the load goes, whatever host its form named


@events.quitting.add_listener
def _end(environment: Environment, **_: Any) -> None:
    if not isinstance(environment.runner, WorkerRunner):
        if not isinstance(environment.runner, MasterRunner):
            writer.add("local", reporter.collect())
        writer.close()
        if ordered:
            _csv(environment)
            _say({"problem": writer.problem, "requests": len(writer.samples)})
    # The samples decide whether the run passed. Locust itself would fail it for a single failed request.
    environment.process_exit_code = 1 if writer.problem else 0


def _csv(environment: Environment) -> None:
    """Writes Locust's tables. Locust's own --csv writes them from a greenlet that may outlive the file (Locust 2.47)."""
    tables = StatsCSV(environment, PERCENTILES_TO_REPORT)
    try:
        with (Path(order.folder) / "locust_stats.csv").open("w", newline="") as file:
            tables.requests_csv(csv.writer(file))
        with (Path(order.folder) / "locust_failures.csv").open("w", newline="") as file:
            tables.failures_csv(csv.writer(file))
    except OSError as error:
        writer.problem = writer.problem or f"{order.folder}: {error.strerror}"


def _report(runner: Runner) -> None:
    """Once a second collects the samples of this process and prints one line of progress."""
    while True:
        gevent.sleep(1.0)
        if not isinstance(runner, MasterRunner):
            writer.add("local", reporter.collect())
        if ordered:
            now = time.time()
            seen = figures(writer.samples[-2000:], Window(now - 10 * order.slowdown, now), order.slo, order.slowdown)
            _say(
                {
                    "users": runner.user_count,
                    "under_way": sum(writer.under_way.values()),
                    "requests": len(writer.samples),
                    "rps": seen.rps,
                    "p95_s": seen.total_p95_s,
                    "failed": seen.failed,
                    "errors": seen.errors,
                    "cpu": max(writer.cpu.values(), default=0.0),
                }
            )


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(orjson.dumps(line).decode() + "\n")
    sys.stdout.flush()
