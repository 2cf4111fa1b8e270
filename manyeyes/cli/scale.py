"""`make scale`: how many engines of a pool run. The controller does it, and tells, a line per engine."""

from pathlib import Path

from manyeyes.cli.compose import Compose
from manyeyes.cli.process import CommandFailed
from manyeyes.cli.terminal import print_line
from manyeyes.config.loader import load

BY_HAND = ("python", "-m", "manyeyes.controller.autoscaling.set_replicas")


def scale(config: Path, engines: str, pool: str) -> int:
    """The exit code of `manyeyes/controller/autoscaling/set_replicas.py`: 0 done, 1 not within its time, 2 refused. Raises Trouble."""
    compose = Compose(load(config).name)
    compose.must_run()
    try:
        compose("exec", "-T", "controller", *BY_HAND, engines, "--pool", pool, on_line=print_line)
    except CommandFailed as error:
        return error.status
    return 0
