"""What a dashboard and a panel are here: data, of which kinds.py and build.py make Grafana's objects."""

from dataclasses import dataclass
from typing import Literal

VARIABLES = {
    "pool": "label_values(manyeyes_engine_state, pool)",
    "engine": 'label_values(manyeyes_engine_state{pool=~"$pool"}, engine)',
    "gpu": "label_values(DCGM_FI_DEV_GPU_UTIL, gpu)",
}
"""What can be chosen above the panels of a dashboard, so that a choice goes along from one to the next."""

POOL = 'pool=~"$pool"'
CHOSEN = 'pool=~"$pool", engine=~"$engine"'
GPU = 'gpu=~"$gpu"'
LEVELS = {"pool": POOL, "pool_engine": CHOSEN, "gpu": GPU, "cluster": ""}

Kind = Literal["timeseries", "stat", "state-timeline", "bargauge"]


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
    kind: Kind = "timeseries"
    width: int = 8
    """Columns of the 24 that Grafana has."""
    height: int = 8
    """Rows of 30 pixels; the same for all panels beside each other."""
    most: float | None = None
    """Upper end of the axis, where there is one."""
    line_at: float | None = None
    """A dashed line where worry begins (timeseries)."""
    colours: tuple[tuple[float, str], ...] = ((0, "green"),)
    """From which value on which colour (stat, bargauge)."""
    names: tuple[tuple[int, str, str], ...] = ()
    """Value, the word shown for it, its colour (state-timeline, stat)."""
    decimals: int | None = None
    none: str = ""
    """Shown where there is nothing to show, so that an idle cluster is no riddle."""
    dashed: str = ""
    """The series whose name begins so is drawn dashed in grey: an objective, a limit."""


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
    variables: tuple[str, ...] = ("pool", "engine")
    span: str = "30m"
    """How far back it looks at first."""


def rate(counter: str, by: str, *where: str, window: str = "$__rate_interval") -> str:
    """What is counted per second. For what no recording rule works out."""
    return f"sum by ({by}) (rate({counter}{{{', '.join(where)}}}[{window}]))"


def recorded(name: str) -> str:
    """A recording rule's series (manyeyes/monitoring/prometheus/recording.py) of what is chosen."""
    chosen = LEVELS[name.partition(":")[0]]
    return f"{name}{{{chosen}}}" if chosen else name
