"""The sentences and the exit code of an error that is no bug."""

import sys

from manyeyes.cli.errors import EXIT_INTERRUPTED, EXIT_UNUSABLE, CliError
from manyeyes.cli.process import CommandFailed, end_all
from manyeyes.cli.terminal import print_error, print_line
from manyeyes.config.keys import KeysError
from manyeyes.config.loader import ConfigError
from manyeyes.config.placement import PlacementError
from manyeyes.config.users import UsersError

LINES = 30
"""Of a program that failed, the last ones."""


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
