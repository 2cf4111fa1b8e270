"""`make logs`: shows the logs of all parts, or traces one request."""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from manyeyes.cli import started_services
from manyeyes.cli.compose import Compose
from manyeyes.cli.terminal import CliError, columns, print_line
from manyeyes.config.checkout import ROOT
from manyeyes.observability.log_format import LEVELS, format_time
from manyeyes.observability.log_lines import LogLine, format_line, read_compose_line
from manyeyes.observability.request_trace import RequestStory, search_window, trace_request

TAIL = 20
"""Number of existing lines shown per part, if SINCE is not given."""
NEAR_S = 60.0
"""Requests within this time of the traced request show which engine has which address."""
ID = re.compile(r"^[A-Za-z0-9._:-]{1,128}$")


@dataclass(frozen=True)
class LogFilter:
    """Selects log lines."""

    part: str = ""
    since: str = ""
    level: str = ""
    raw: bool = False
    follow: bool = True

    def takes(self, line: LogLine) -> bool:
        least = LEVELS.index(self.level) if self.level else 0
        return self.part in ("", line.part, line.service, line.engine) and LEVELS.index(line.level) >= least


def started_compose(config: Path) -> Compose:
    """Returns the Compose project of the cluster that was started with this configuration."""
    return Compose.of_started(started_services.configuration(config).name)


def show(compose: Compose, wanted: LogFilter) -> None:
    """Prints lines until Ctrl-C, or only existing lines if `wanted.follow` is false. Raises CliError."""
    if wanted.level not in ("", *LEVELS):
        raise CliError(f"LEVEL: expected one of {', '.join(LEVELS)}, got {wanted.level}")
    if wanted.part not in ("", "engine") and wanted.part not in (there := _services(compose)):
        raise CliError(f"PART: expected one of {', '.join(['engine', *there])}, got {wanted.part}")
    options = ["--since", wanted.since] if wanted.since else ["--tail", str(TAIL)] if wanted.follow else []
    named = [wanted.part] if wanted.part not in ("", "engine") else []
    found = (
        line
        for line in _lines(compose, [*options, *(["--follow"] if wanted.follow else [])], named)
        if wanted.takes(line)
    )
    try:
        for line in found if wanted.follow else sorted(found, key=lambda one: one.at_s):
            _print(line, wanted.raw)
    except KeyboardInterrupt:
        print_line()


def show_request(compose: Compose, request: str, raw: bool) -> None:
    """Prints the trace of one request. Raises CliError if no log contains it."""
    if not ID.match(request):
        raise CliError(f"REQUEST: expected an id of 1 to 128 letters, digits and . _ : -, got {request}")
    naming = [line for line in _lines(compose, [], []) if line.request == request]
    between = search_window(naming, request)
    if between is None:
        raise CliError(
            f"no log contains request {request}. The id is in the response header X-Request-Id. "
            "Old log lines are deleted (`logs.retention_mb`)."
        )
    if raw:
        for line in sorted(naming, key=lambda one: one.at_s):
            _print(line, raw)
        return
    since, until = format_time(between[0] - NEAR_S), format_time(between[1] + NEAR_S)
    near = list(_lines(compose, ["--since", since, "--until", until], []))
    before = [line for line in _lines(compose, ["--until", since], ["controller"]) if line.engine]
    day = datetime.fromtimestamp(between[0], UTC)
    print_line(f"request {request}, {day:%Y-%m-%d}, times in UTC")
    for one in trace_request([*before, *near, *(line for line in naming if line not in near)], request):
        print_line(_told(one))


def _told(one: RequestStory) -> str:
    line = LogLine(one.who, format_time(one.at_s), "info", one.who, "said", {"message": one.what})
    return format_line(line, *_terminal())


def _print(line: LogLine, raw: bool) -> None:
    try:
        print_line(line.text() if raw else format_line(line, *_terminal()))
    except BrokenPipeError:  # `make logs | head`
        raise KeyboardInterrupt from None


def _terminal() -> tuple[int | None, bool]:
    return (columns(), True) if sys.stdout.isatty() else (None, False)


def _services(compose: Compose) -> list[str]:
    found = sorted({str(row["Service"]) for row in compose.containers()})
    if not found:
        raise CliError("the cluster has no containers, so there are no logs. Start it with `make up`.")
    return found


def _lines(compose: Compose, options: list[str], services: list[str]) -> Iterator[LogLine]:
    command = ["docker", "compose", "logs", "--no-color", "--timestamps", *options, *services]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if "--follow" not in options else None,
        text=True,
        errors="replace",
        cwd=ROOT,
        env=compose.full_environment(),
    )
    assert process.stdout
    try:
        for text in process.stdout:
            if text.strip():
                yield read_compose_line(text)
        if process.wait() and process.stderr:
            raise CliError("the logs cannot be read. Docker's error is above.", details=process.stderr.read())
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
        if process.stderr:
            process.stderr.close()
