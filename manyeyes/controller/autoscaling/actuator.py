"""How engines rest and come back: one small protocol, two ways."""

from collections.abc import Sequence
from typing import Protocol

from manyeyes.config.engines import Engine


class CannotMove(Exception):
    """An engine could not be brought to rest or back; the message says why and what to do."""


class Actuator(Protocol):
    """Starts and stops engines, or puts them to sleep and wakes them."""

    async def at_rest(self, engines: Sequence[Engine]) -> dict[str, bool]:
        """Whether each of them rests, by name; without those that this actuator cannot move. Raises CannotMove when it knows nothing."""
        ...

    async def bring_back(self, engine: Engine) -> None:
        """Returns when it is on its way; it is up only when its warm-up picture is answered. Raises CannotMove."""
        ...

    async def lay_to_rest(self, engine: Engine) -> None:
        """Returns when it rests. What it has in flight is lost, so it is drained before. Raises CannotMove."""
        ...
