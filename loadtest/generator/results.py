"""Collects samples in each Locust process, passes them to the master and writes them to files.

Samples reach the master directly or with a worker's reports. requests.jsonl has all samples, generator.jsonl has the CPU use
and timer lag of each process, once a second.
"""

import itertools
import os
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import astuple
from pathlib import Path
from typing import IO, Any

import gevent
import orjson
from flask import Response, request
from locust import User, constant, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from loadtest import users
from loadtest.run_spec import RunSpec
from loadtest.statistics import STANDARD_OBJECTIVE, Sample, Window, figures
from loadtest.virtual_user import VirtualUser
from loadtest.web_access import check_access

LAG_EVERY_S = 0.05


class SampleReporter:
    """Buffers samples until `collect`, counts conversations in progress, and measures the load of its process."""

    def __init__(self) -> None:
        self.environment: Environment | None = None
        self.under_way = 0
        self._samples: list[Sample] = []
        self._cpu_s, self._at = _cpu_s(), time.monotonic()
        self._lag_s = 0.0

    def sample(self, sample: Sample) -> None:
        self._samples.append(sample)
        assert self.environment is not None
        # Locust's table and charts get complete answers only. First tokens and tokens per second are reported
        # separately, because Locust would count further rows as requests.
        self.environment.events.request.fire(
            request_type="POST",
            name=sample.scenario,
            response_time=1000 * sample.total_s,
            response_length=sample.tokens,
            exception=RequestFailed(sample.failed) if sample.failed else None,
            context={},
        )

    def watch(self) -> None:
        """Greenlet that measures how late timers fire. Timestamps of tokens are late by the same time."""
        while True:
            before = time.monotonic()
            gevent.sleep(LAG_EVERY_S)
            self._lag_s = max(self._lag_s, time.monotonic() - before - LAG_EVERY_S)

    def collect(self) -> dict[str, Any]:
        """Returns everything since the last call. `cpu`: fraction of a core that this process used since then."""
        samples, self._samples = self._samples, []
        cpu_s, now, lag_s = _cpu_s(), time.monotonic(), self._lag_s
        share = (cpu_s - self._cpu_s) / max(1e-3, now - self._at)
        self._cpu_s, self._at, self._lag_s = cpu_s, now, 0.0
        return {
            "samples": [astuple(sample) for sample in samples],
            "cpu": share,
            "lag_s": lag_s,
            "under_way": self.under_way,
        }


class RequestFailed(Exception):
    """Why a request does not count as answered. Locust groups failures by this text."""


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


MAX_SAMPLES_IN_MEMORY = 20_000


class ResultWriter:
    """Result files of one run. `problem`: why they are incomplete; `failed` is called once if a write fails."""

    def __init__(self, folder: Path | None, failed: Callable[[], None]) -> None:
        self.samples: list[Sample] = []
        self.problem = ""
        self.cpu: dict[str, float] = {}
        self.under_way: dict[str, int] = {}
        self._failed = failed
        self._files: dict[str, IO[bytes]] = {}
        if folder is not None:
            self._files = {name: (folder / f"{name}.jsonl").open("ab") for name in ("requests", "generator")}

    def add(self, process: str, report: Mapping[str, Any]) -> None:
        new = [Sample(*fields) for fields in report["samples"]]
        self.samples += new
        if not self._files:  # Locust's web page, which may run for days
            del self.samples[:-MAX_SAMPLES_IN_MEMORY]
        self.cpu[process], self.under_way[process] = report["cpu"], report["under_way"]
        status = {"at_s": time.time(), "process": process, "cpu": report["cpu"], "lag_s": report["lag_s"]}
        self._write("requests", b"".join(sample.line() for sample in new))
        self._write("generator", orjson.dumps(status) + b"\n")

    def _write(self, name: str, lines: bytes) -> None:
        if not lines or not self._files or self.problem:
            return
        try:
            self._files[name].write(lines)
            self._files[name].flush()
        except OSError as error:
            self.problem = f"{self._files[name].name}: {error.strerror}"
            self._failed()

    def close(self) -> None:
        for file in self._files.values():
            try:
                file.close()
            except OSError as error:
                self.problem = self.problem or f"{file.name}: {error.strerror}"


TABLE = "tokens"
COLUMNS = (
    ("scenario", "Scenario"),
    ("answers", "Answers"),
    ("first_p50_ms", "First token p50 (ms)"),
    ("first_p95_ms", "First token p95 (ms)"),
    ("token_p50_ms", "Per token p50 (ms)"),
    ("tokens_per_s", "Tokens a second"),
    ("engines", "Answers by engine"),
)


def add_arguments(parser: LocustArgumentParser, order: RunSpec) -> None:
    parser.add_argument("--scenario", default=order.scenario, help=f"{', '.join(users.ALL)}, or a mix: image:3,video:1")
    parser.add_argument("--model", default=order.model, help="model name in requests; auto lets the gateway choose")
    parser.add_argument("--seed", type=int, default=order.seed, help="the same seed gives the same questions")
    parser.add_argument("--api-key", default="", is_secret=True, help="required if the gateway checks API keys")


def read_page_key() -> str:
    """The key of the gateway's internal port; empty outside of the cluster."""
    file = os.environ.get("MANYEYES_PAGE_KEY_FILE", "")
    return Path(file).read_text(encoding="ascii").strip() if file else ""


def web_user(order: RunSpec, reporter: SampleReporter) -> type[User]:
    """The user class for Locust's web page. Each user reads the fields of the page when it starts."""
    user_index = itertools.count()

    class Visitor(User):
        wait_time = constant(0)

        def on_start(self) -> None:
            options = self.environment.parsed_options
            assert options is not None
            settings = order.request_settings()
            # Not the host that the page's form has: it could name any server.
            chosen = RunSpec(order.url, options.model, options.scenario, "").request_settings()
            number = next(user_index)
            self.seed = int(options.seed)
            self.scenario = users.mix(options.scenario).of(number)
            key = options.api_key or settings.key
            page_key = read_page_key() if chosen.to == settings.to else ""
            self.virtual_user = VirtualUser(
                number,
                type(settings)(to=chosen.to, model=options.model, key=key, trusted=settings.trusted, page_key=page_key),
                reporter.sample,
                gevent.sleep,
            )
            self.conversations = 0

        def on_stop(self) -> None:
            self.virtual_user.connection.close()

        @task
        def converse(self) -> None:
            conversation = self.scenario.conversation(self.seed, self.virtual_user.number, self.conversations)
            self.conversations += 1
            self.virtual_user.converse(self.scenario, conversation)

    return Visitor


def extend_web_ui(environment: Environment, writer: ResultWriter) -> None:
    """Adds the tab `Tokens` to Locust's web page. Its rows are sent with Locust's statistics."""
    web = environment.web_ui
    assert web is not None
    assert web.app is not None
    web.template_args["extendedTabs"] = [{"title": "Tokens", "key": TABLE}]
    web.template_args["extendedTables"] = [
        {"key": TABLE, "structure": [{"key": key, "title": title} for key, title in COLUMNS]}
    ]

    def add_rows(response: Response) -> Response:
        if request.path.endswith("/stats/requests") and response.is_json:
            body = response.get_json() | {"extendedStats": [{"key": TABLE, "data": rows(writer)}]}
            response.set_data(orjson.dumps(body))
        return response

    web.app.after_request(add_rows)
    web.app.before_request(lambda: check_access(request))


def rows(writer: ResultWriter) -> list[dict[str, Any]]:
    now, table = time.time(), []
    for scenario in sorted({sample.scenario for sample in writer.samples}):
        samples = [sample for sample in writer.samples if sample.scenario == scenario]
        started = min(sample.began_s for sample in samples)
        seen = figures(samples, Window(started, now), STANDARD_OBJECTIVE)
        table.append(
            {
                "scenario": scenario,
                "answers": seen.answered,
                "first_p50_ms": round(1000 * seen.first_p50_s),
                "first_p95_ms": round(1000 * seen.first_p95_s),
                "token_p50_ms": round(1000 * seen.token_p50_s, 1),
                "tokens_per_s": round(seen.tokens_per_s, 1),
                "engines": ", ".join(f"{name}: {count}" for name, count in seen.per_engine.items()),
            }
        )
    return table
