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
from manyeyes.observability.request_trace import RequestEvent, search_window, trace_request

TAIL = 20
"""Number of existing lines shown per part, if SINCE is not given."""
CONTEXT_S = 60.0
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

    def matches(self, line: LogLine) -> bool:
        minimum = LEVELS.index(self.level) if self.level else 0
        return self.part in ("", line.part, line.service, line.engine) and LEVELS.index(line.level) >= minimum


def started_compose(config: Path) -> Compose:
    """Returns the Compose project of the cluster that was started with this configuration."""
    return Compose.of_started(started_services.configuration(config).name)


def show(compose: Compose, log_filter: LogFilter) -> None:
    """Prints lines until Ctrl-C, or only existing lines if `wanted.follow` is false. Raises CliError."""
    if log_filter.level not in ("", *LEVELS):
        raise CliError(f"LEVEL: expected one of {', '.join(LEVELS)}, got {log_filter.level}")
    if log_filter.part not in ("", "engine") and log_filter.part not in (services := _services(compose)):
        raise CliError(f"PART: expected one of {', '.join(['engine', *services])}, got {log_filter.part}")
    options = ["--since", log_filter.since] if log_filter.since else ["--tail", str(TAIL)] if log_filter.follow else []
    selected = [log_filter.part] if log_filter.part not in ("", "engine") else []
    lines = (
        line
        for line in _lines(compose, [*options, *(["--follow"] if log_filter.follow else [])], selected)
        if log_filter.matches(line)
    )
    try:
        for line in lines if log_filter.follow else sorted(lines, key=lambda line: line.at_s):
            _print(line, log_filter.raw)
    except KeyboardInterrupt:
        print_line()


def show_request(compose: Compose, request: str, raw: bool) -> None:
    """Prints the trace of one request. Raises CliError if no log contains it."""
    if not ID.match(request):
        raise CliError(f"REQUEST: expected an id of 1 to 128 letters, digits and . _ : -, got {request}")
    request_lines = [line for line in _lines(compose, [], []) if line.request == request]
    window = search_window(request_lines, request)
    if window is None:
        raise CliError(
            f"no log contains request {request}. The id is in the response header X-Request-Id. "
            "Old log lines are deleted (`logs.retention_mb`)."
        )
    if raw:
        for line in sorted(request_lines, key=lambda line: line.at_s):
            _print(line, raw)
        return
    since, until = format_time(window[0] - CONTEXT_S), format_time(window[1] + CONTEXT_S)
    nearby = list(_lines(compose, ["--since", since, "--until", until], []))
    earlier = [line for line in _lines(compose, ["--until", since], ["controller"]) if line.engine]
    day = datetime.fromtimestamp(window[0], UTC)
    print_line(f"request {request}, {day:%Y-%m-%d}, times in UTC")
    for story in trace_request([*earlier, *nearby, *(line for line in request_lines if line not in nearby)], request):
        print_line(_format_story(story))


def _format_story(story: RequestEvent) -> str:
    line = LogLine(story.source, format_time(story.at_s), "info", story.source, "said", {"message": story.text})
    return format_line(line, *_terminal())


def _print(line: LogLine, raw: bool) -> None:
    try:
        print_line(line.text() if raw else format_line(line, *_terminal()))
    except BrokenPipeError:  # `make logs | head`
        raise KeyboardInterrupt from None


def _terminal() -> tuple[int | None, bool]:
    return (columns(), True) if sys.stdout.isatty() else (None, False)


def _services(compose: Compose) -> list[str]:
    names = sorted({str(row["Service"]) for row in compose.containers()})
    if not names:
        raise CliError("the cluster has no containers, so there are no logs. Start it with `make up`.")
    return names


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
