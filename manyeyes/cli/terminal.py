"""Output of commands: one line per step, with progress during long steps; and the errors that are reported without a
traceback."""

import contextlib
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Iterator

from manyeyes.cli.process import CommandFailed, stop_all
from manyeyes.config.credentials import KeysError, UsersError
from manyeyes.config.loader import ConfigError
from manyeyes.config.placement import PlacementError

PROGRESS_INTERVAL_S = 15.0
"""Seconds between progress lines of a long step, if the output is not a terminal."""


class Step:
    """A running step; `note` is shown after its elapsed time."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.note = ""
        self.outcome = ""
        self.may_fail = False
        """A failure of the step is not printed, because another way is tried next."""


def print_line(text: str = "") -> None:
    print(text, flush=True)


def print_ok(text: str) -> None:
    _print_marked("ok", text)


def print_warning(text: str) -> None:
    _print_marked("!!", text)


def print_error(text: str) -> None:
    _print_marked("no", text)


def _print_marked(mark: str, text: str) -> None:
    """Prints one message. It is wrapped on a terminal, and is a single line in a log, so that it can be searched."""
    lines = textwrap.wrap(text, columns() - 7, break_long_words=False, break_on_hyphens=False) or [""]
    print_line(f"  {mark}  " + "\n      ".join(lines if sys.stdout.isatty() else [text]))


@contextlib.contextmanager
def step(title: str) -> Iterator[Step]:
    """Shows the title and the elapsed time while the body runs, then one line with the result."""
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
        elapsed_s = time.monotonic() - started
        duration = f" ({elapsed_s:.0f} s)" if elapsed_s >= 1 else ""
        if not failed:
            print_ok(f"{current.outcome or current.title}{duration}")
        elif not current.may_fail:
            print_error(f"{current.title}{duration}")


def _tick(current: Step, started: float, done: threading.Event) -> None:
    tty = sys.stdout.isatty()
    printed_s = started
    shown_note = ""
    while not done.wait(0.5 if tty else 1.0):
        now_s = time.monotonic()
        line = f"  ..  {current.title}, {now_s - started:.0f} s" + (f": {current.note}" if current.note else "")
        if tty:
            _clear_line()
            print(line[: columns() - 1], end="", flush=True)
        elif now_s - printed_s >= PROGRESS_INTERVAL_S or (current.note != shown_note and now_s - printed_s >= 5):
            print_line(line[:160])
            printed_s, shown_note = now_s, current.note


def _clear_line() -> None:
    if sys.stdout.isatty():
        print("\r\x1b[2K", end="", flush=True)


def columns() -> int:
    return shutil.get_terminal_size((80, 24)).columns


EXIT_FAULT = 1
"""A bug (with a traceback), or the goal was not reached."""
EXIT_UNUSABLE = 2
"""A problem with the host, the configuration or the command line."""
EXIT_INTERRUPTED = 130
"""Interrupted by Ctrl-C."""


LINES = 30
"""Number of last lines that are printed of a failed program."""


class CliError(Exception):
    """Problems of a command, each one sentence with what to do next. All are printed, and the command exits with code
    2."""

    def __init__(self, *problems: str, details: str = "") -> None:
        self.problems = problems
        self.details = details
        super().__init__("\n".join(problems))


def print_known_error(error: BaseException) -> int | None:
    """Prints a known error and returns the exit code. Returns None, without output, for a bug."""
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
    """Stops all running programs, prints a message, and returns the exit code."""
    stop_all()
    print_error("interrupted")
    return EXIT_INTERRUPTED


def _print_indented(lines: list[str]) -> None:
    if lines:
        print_line("\n".join(f"      {line}" for line in lines))
