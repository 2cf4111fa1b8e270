"""`make scale`: how many engines of a pool run. The controller does it, and tells, a line per engine."""

from pathlib import Path

from config.load import load
from host import facts
from host.command import CommandFailed
from host.compose import Compose
from host.terminal import say
from host.trouble import Trouble

BY_HAND = ("python", "-m", "controller.scaling.by_hand")


def scale(config: Path, engines: str, pool: str) -> int:
    """The exit code of `controller/scaling/by_hand.py`: 0 done, 1 not within its time, 2 refused. Raises Trouble."""
    name = load(config).name
    compose = Compose(name)
    if not facts.docker().server or not compose.runs():
        raise Trouble(f"the cluster '{name}' does not run: make up")
    try:
        compose("exec", "-T", "controller", *BY_HAND, engines, "--pool", pool, on_line=say)
    except CommandFailed as error:
        return error.status
    return 0
