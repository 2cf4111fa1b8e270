"""What ends a command without being a bug: its sentences and its exit code."""

import sys

from manyeyes.cli.process import CommandFailed, end_all
from manyeyes.cli.terminal import print_error, print_line
from manyeyes.config.credentials import KeysError, UsersError
from manyeyes.config.loader import ConfigError
from manyeyes.config.placement import PlacementError

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
