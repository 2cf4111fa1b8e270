"""`make scale`: how many engines of a pool run. The controller does it, and tells, a line per engine."""

from pathlib import Path

from manyeyes.cli.command import CommandFailed
from manyeyes.cli.compose import Compose
from manyeyes.cli.terminal import say
from manyeyes.config.load import load

BY_HAND = ("python", "-m", "manyeyes.controller.scaling.by_hand")


def scale(config: Path, engines: str, pool: str) -> int:
    """The exit code of `manyeyes/controller/scaling/by_hand.py`: 0 done, 1 not within its time, 2 refused. Raises Trouble."""
    compose = Compose(load(config).name)
    compose.must_run()
    try:
        compose("exec", "-T", "controller", *BY_HAND, engines, "--pool", pool, on_line=say)
    except CommandFailed as error:
        return error.status
    return 0
