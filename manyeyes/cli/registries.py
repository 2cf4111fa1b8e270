"""Pulls images, and remembers which registries cannot be reached."""

import re

from manyeyes.cli.process import CommandFailed, run
from manyeyes.cli.terminal import print_warning, step

PULL_S = 6 * 3600.0
"""vLLM's image for GPUs is 13 GB packed: 3 hours at 10 Mbit/s."""
NO_SUCH_IMAGE = re.compile(
    r"not found|manifest unknown|does not exist|denied|unauthorized|invalid reference", re.IGNORECASE
)
"""The registry answers, and has no such image for this host."""


class Registries:
    """Which of them can be reached. One refusal is enough: the next image of the same one would wait for the same time-out."""

    def __init__(self, may_pull: bool) -> None:
        self._may_pull = may_pull
        self._unreachable: dict[str, str] = {}
        """{registry: why it is not asked again}"""
        self._unreachable_for_optional: dict[str, str] = {}
        self._reasons: dict[str, str] = {}

    def pull(self, reference: str, optional: bool = False) -> bool:
        """Whether it was pulled."""
        if not self._may_pull:
            return False
        host = registry_of(reference)
        unreachable = self._unreachable | (self._unreachable_for_optional if optional else {})
        if host in unreachable:
            self._reasons[reference] = unreachable[host]
            return False
        reason = _pull(reference)
        if reason is None:
            return True
        self._reasons[reference] = reason
        if not NO_SUCH_IMAGE.search(reason):
            (self._unreachable_for_optional if optional else self._unreachable)[host] = reason
        return False

    def why_not(self, reference: str) -> str:
        """What Docker said; empty where it was not asked."""
        return self._reasons.get(reference, "")


def registry_of(reference: str) -> str:
    """nginx:1.30 -> docker.io; nvcr.io/nvidia/x:1 -> nvcr.io."""
    first, slash, _ = reference.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else "docker.io"


def _pull(reference: str) -> str | None:
    """Why it could not be pulled; None where it was."""
    try:
        with step(f"pulling {reference}") as current:
            current.may_fail = True
            run(
                ["docker", "pull", reference],
                on_line=lambda line: setattr(current, "note", line[:60]),
                timeout_s=PULL_S,
            )
            current.outcome = f"pulled {reference}"
    except CommandFailed as error:
        # Docker's sentence ends with the reason: ... dial tcp: lookup registry.example: no such host.
        print_warning(f"{reference} cannot be pulled: {error.last_line.rsplit(': ', 1)[-1][:60]}")
        return error.last_line[:300]
    except TimeoutError:
        print_warning(f"{reference} could not be pulled within {PULL_S / 3600:.0f} hours")
        return f"it took longer than {PULL_S / 3600:.0f} hours"
    return None
