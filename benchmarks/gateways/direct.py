"""No gateway: each client goes to an engine itself and stays there for its conversation. The bound, not a competitor."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.gateways.gateway import Gateway, Running, Setting


@contextlib.contextmanager
def _run(folder: Path, engines: Sequence[str]) -> Iterator[Running]:
    yield Running(tuple(engines))


GATEWAY = Gateway(
    name="no gateway",
    product="none",
    version=lambda: "-",
    run=_run,
    settings=(
        Setting(
            "conversation number modulo the number of engines chooses the engine",
            "perfect affinity at no cost; what a gateway can come near to",
            "benchmarks/gateways/direct.py",
        ),
    ),
)
