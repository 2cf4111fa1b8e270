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

    least: float
    most: float = 1e9
    whole: bool = False

    def __call__(self, text: str) -> float:
        try:
            value = int(text) if self.whole else float(text)
        except ValueError:
            value = float("nan")
        if not self.least <= value <= self.most:
            kind = "a whole number" if self.whole else "a number"
            limits = f"of at least {self.least:g}" if self.most == 1e9 else f"from {self.least:g} to {self.most:g}"
            raise argparse.ArgumentTypeError(f"expected {kind} {limits}, got {text!r}")
        return value


COUNT = NumberArgument(1, whole=True)
