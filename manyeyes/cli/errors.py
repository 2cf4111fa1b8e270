"""What ends a command without being a bug: its sentences and its exit code."""

EXIT_FAULT = 1
"""A bug (with a traceback), or what was asked for was not reached."""
EXIT_UNUSABLE = 2
"""The host, the configuration or the command line."""
EXIT_INTERRUPTED = 130
"""Ctrl-C."""


class CliError(Exception):
    """Each problem is one sentence with what to do next; all are printed and the command ends with 2."""

    def __init__(self, *problems: str, details: str = "") -> None:
        self.problems = problems
        self.details = details
        super().__init__("\n".join(problems))
