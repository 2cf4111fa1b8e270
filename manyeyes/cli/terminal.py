"""What commands print: one line per step, never wider than 80 columns, alive during long steps; and what ends one without being a bug."""

import contextlib
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Iterator

from manyeyes.cli.process import CommandFailed, end_all
from manyeyes.config.credentials import KeysError, UsersError
from manyeyes.config.loader import ConfigError
from manyeyes.config.placement import PlacementError

QUIET_EVERY_S = 15.0
"""Without a terminal, a long step says every so often that it goes on."""


class Step:
    """A step under way; `note` is shown beside its clock."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.note = ""
        self.outcome = ""
        self.may_fail = False
        """A failure is no news for the user: another way is tried next."""


def print_line(text: str = "") -> None:
    print(text, flush=True)


def print_ok(text: str) -> None:
    _marked("ok", text)


def print_warning(text: str) -> None:
    _marked("!!", text)


def print_error(text: str) -> None:
    _marked("no", text)


def _marked(mark: str, text: str) -> None:
    """One sentence, on a terminal broken at its width; a log keeps it on one line to search in."""
    lines = textwrap.wrap(text, columns() - 7, break_long_words=False, break_on_hyphens=False) or [""]
    print_line(f"  {mark}  " + "\n      ".join(lines if sys.stdout.isatty() else [text]))


@contextlib.contextmanager
def step(title: str) -> Iterator[Step]:
    """Shows the title and a clock while the body runs, then one line with the time it took."""
    current = Step(title)
    started = time.monotonic()
    done = threading.Event()
    ticker = threading.Thread(target=_tick, args=(current, started, done), daemon=True)
    ticker.start()
    failed = True
    try:
        yield current
        failed = False
    finally:
        done.set()
        ticker.join()
        _clear_line()
        took = time.monotonic() - started
        seconds = f" ({took:.0f} s)" if took >= 1 else ""
        if not failed:
            print_ok(f"{current.outcome or current.title}{seconds}")
        elif not current.may_fail:
            print_error(f"{current.title}{seconds}")


def _tick(current: Step, started: float, done: threading.Event) -> None:
    tty = sys.stdout.isatty()
    said = started
    shown_note = ""
    while not done.wait(0.5 if tty else 1.0):
        now = time.monotonic()
        line = f"  ..  {current.title}, {now - started:.0f} s" + (f": {current.note}" if current.note else "")
        if tty:
            _clear_line()
            print(line[: columns() - 1], end="", flush=True)
        elif now - said >= QUIET_EVERY_S or (current.note != shown_note and now - said >= 5):
            print_line(line[:160])
            said, shown_note = now, current.note


def _clear_line() -> None:
    if sys.stdout.isatty():
        print("\r\x1b[2K", end="", flush=True)


def columns() -> int:
    return shutil.get_terminal_size((80, 24)).columns


EXIT_FAULT = 1
"""A bug (with a traceback), or what was asked for was not reached."""
EXIT_UNUSABLE = 2
"""The host, the configuration or the command line."""
EXIT_INTERRUPTED = 130
"""Ctrl-C."""


LINES = 30
"""Of a program that failed, the last ones."""


class CliError(Exception):
    """Each problem is one sentence with what to do next; all are printed and the command ends with 2."""

    def __init__(self, *problems: str, details: str = "") -> None:
        self.problems = problems
        self.details = details
        super().__init__("\n".join(problems))


def print_known_error(error: BaseException) -> int | None:
    """Prints it and returns the exit code; None, with nothing printed, for a bug."""
    match error:
        case ConfigError() | KeysError() | PlacementError() | UsersError():
            print(error, file=sys.stderr)
        case CliError():
            _print_indented(error.details.rstrip().splitlines())
            for problem in error.problems:
                print_error(problem)
        case CommandFailed():
            _print_indented(error.output.rstrip().splitlines()[-LINES:])
            print_error(f"`{' '.join(error.command[:4])}` failed: {error.last_line}")
        case _:
            return None
    return EXIT_UNUSABLE


def print_interrupted() -> int:
    """Ends what still runs."""
    end_all()
    print_error("interrupted")
    return EXIT_INTERRUPTED


def _print_indented(lines: list[str]) -> None:
    if lines:
        print_line("\n".join(f"      {line}" for line in lines))
