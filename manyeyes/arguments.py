"""Argument parsing for programs that report errors in one line."""

import argparse
import sys
from dataclasses import dataclass
from typing import NoReturn


class OneLineParser(argparse.ArgumentParser):
    """An argument parser that prints errors in one line, prefixed with `name`."""

    def __init__(self, name: str, *, prog: str, description: str | None) -> None:
        super().__init__(prog=prog, description=description)
        self.name = name

    def error(self, message: str) -> NoReturn:
        print(f"{self.name}: {message}", file=sys.stderr)
        raise SystemExit(2)


@dataclass(frozen=True)
class NumberArgument:
    """An argparse type for a number within limits."""

    minimum: float
    maximum: float = 1e9
    is_whole: bool = False

    def __call__(self, text: str) -> float:
        try:
            value = int(text) if self.is_whole else float(text)
        except ValueError:
            value = float("nan")
        if not self.minimum <= value <= self.maximum:
            number_kind = "a whole number" if self.is_whole else "a number"
            limits = (
                f"of at least {self.minimum:g}" if self.maximum == 1e9 else f"from {self.minimum:g} to {self.maximum:g}"
            )
            raise argparse.ArgumentTypeError(f"expected {number_kind} {limits}, got {text!r}")
        return value


COUNT = NumberArgument(1, is_whole=True)
