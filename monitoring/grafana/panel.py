"""What a panel is here, before it is Grafana's JSON."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Panel:
    """One panel: what it asks, and what it tells whoever reads it."""

    title: str
    description: str
    """What it means and when to worry, in sentences."""
    unit: str
    """A unit id of Grafana's: reqps, s, percentunit, short, or `suffix: anything`."""
    queries: dict[str, str]
    """PromQL by legend; a legend may name labels, as in {{engine}}."""
    kind: Literal["timeseries", "stat", "state-timeline"] = "timeseries"
    width: int = 8
    """Columns of the 24 that Grafana has."""
    most: float | None = None
    """Upper end of the axis, where there is one."""
    line_at: float | None = None
    """A dashed line where worry begins (timeseries)."""
    colours: tuple[tuple[float, str], ...] = ((0, "green"),)
    """From which value on which colour (stat)."""
    names: tuple[tuple[int, str, str], ...] = ()
    """Value, the word shown for it, its colour (state-timeline)."""


@dataclass(frozen=True)
class Row:
    """Panels that answer one question together."""

    title: str
    panels: tuple[Panel, ...]
