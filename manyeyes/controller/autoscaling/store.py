"""What of scaling outlives the controller: the counts wanted, and the engines that scaling itself holds back."""

from dataclasses import dataclass, field
from typing import Any

from manyeyes.controller.state_store import Kept

DOCUMENT = "scaling"
MOST_ENGINES = 1_000_000


@dataclass
class Memory:
    """Read once, written after every change. `going` engines are drained, `resting` ones stopped or asleep."""

    wanted: dict[str, int] = field(default_factory=dict)
    """By pool."""
    fixed: dict[str, int] = field(default_factory=dict)
    """By pool: counts set by hand."""
    going: set[str] = field(default_factory=set)
    resting: set[str] = field(default_factory=set)

    def document(self) -> dict[str, Any]:
        return {
            "wanted": dict(sorted(self.wanted.items())),
            "fixed": dict(sorted(self.fixed.items())),
            "going": sorted(self.going),
            "resting": sorted(self.resting),
        }


def read(kept: Kept) -> Memory:
    """What was kept; nothing where there is none, or where it makes no sense (it is then set aside)."""
    document = kept.read(DOCUMENT)
    if document is None:
        return Memory()
    try:
        if not isinstance(document, dict):
            raise TypeError("it holds no mapping")
        return Memory(
            wanted=_counts(document["wanted"]),
            fixed=_counts(document["fixed"]),
            going=_names(document["going"]),
            resting=_names(document["resting"]),
        )
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        kept.set_aside(DOCUMENT, f"{type(error).__name__}: {error}")
        return Memory()


def _counts(document: Any) -> dict[str, int]:
    if not isinstance(document, dict):
        raise TypeError("counts are no mapping")
    counts = {str(pool): int(count) for pool, count in document.items()}
    if any(not 1 <= count <= MOST_ENGINES for count in counts.values()):
        raise ValueError(f"a count that is not from 1 to {MOST_ENGINES}")
    return counts


def _names(document: Any) -> set[str]:
    if not isinstance(document, list):
        raise TypeError("names of engines are no list")
    return {str(name) for name in document}
