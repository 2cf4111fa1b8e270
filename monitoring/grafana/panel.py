"""What a dashboard and its panels are here, before they are Grafana's JSON."""

from dataclasses import dataclass
from typing import Literal

VARIABLES = {
    "pool": "label_values(manyeyes_engine_state, pool)",
    "engine": 'label_values(manyeyes_engine_state{pool=~"$pool"}, engine)',
}
"""What can be chosen above the panels of every dashboard, so that a choice goes along from one to the next."""

CHOSEN = 'pool=~"$pool", engine=~"$engine"'


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


@dataclass(frozen=True)
class Dashboard:
    """One page."""

    name: str
    """Of its file, and behind `manyeyes-` its address in Grafana."""
    title: str
    description: str
    """The questions it answers, in a sentence."""
    rows: tuple[Row, ...]
