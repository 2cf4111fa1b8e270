"""Defines dashboards and panels as data, and builds Grafana panels from them with Grafana's Foundation SDK."""

from dataclasses import dataclass
from string import ascii_uppercase
from typing import Literal, TypeVar

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as values
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import QueryEditorMode

VARIABLES = {
    "pool": "label_values(manyeyes_engine_state, pool)",
    "engine": 'label_values(manyeyes_engine_state{pool=~"$pool"}, engine)',
    "gpu": "label_values(DCGM_FI_DEV_GPU_UTIL, gpu)",
}
"""Variables that can be selected above the panels. The selection is passed on to linked dashboards."""

POOL = 'pool=~"$pool"'
SELECTED = 'pool=~"$pool", engine=~"$engine"'
GPU = 'gpu=~"$gpu"'
LEVELS = {"pool": POOL, "pool_engine": SELECTED, "gpu": GPU, "cluster": ""}

PanelKind = Literal["timeseries", "stat", "state-timeline", "bargauge"]


@dataclass(frozen=True)
class DashboardPanel:
    """One panel: its queries and its texts."""

    title: str
    description: str
    """What it shows and when to worry, in sentences."""
    unit: str
    """A unit id of Grafana's: reqps, s, percentunit, short, or `suffix: anything`."""
    queries: dict[str, str]
    """PromQL by legend; a legend may name labels, as in {{engine}}."""
    kind: PanelKind = "timeseries"
    width: int = 8
    """Columns of the 24 that Grafana has."""
    height: int = 8
    """Rows of 30 pixels; the same for all panels in a line."""
    max_value: float | None = None
    """Upper end of the axis, if it is fixed."""
    line_at: float | None = None
    """A dashed line at the value where worry begins (timeseries)."""
    colours: tuple[tuple[float, str], ...] = ((0, "green"),)
    """(lowest value, colour) of each range (stat, bargauge)."""
    names: tuple[tuple[int, str, str], ...] = ()
    """Value, the word shown for it, its colour (state-timeline, stat)."""
    decimals: int | None = None
    no_value_text: str = ""
    """Shown if there is no value, for example in an idle cluster."""
    dashed: str = ""
    """The series whose legend begins with this text is drawn dashed in grey: an objective, a limit."""


@dataclass(frozen=True)
class DashboardRow:
    """Panels that answer one question together."""

    title: str
    panels: tuple[DashboardPanel, ...]


@dataclass(frozen=True)
class Dashboard:
    name: str
    """Name of its file; `manyeyes-` and the name is its uid in Grafana."""
    title: str
    description: str
    """What it shows, in a sentence."""
    rows: tuple[DashboardRow, ...]
    variables: tuple[str, ...] = ("pool", "engine")
    span: str = "30m"
    """Time range when it is opened."""


def rate(counter: str, by: str, *where: str, window: str = "$__rate_interval") -> str:
    """Rate of a counter per second, for which there is no recording rule."""
    return f"sum by ({by}) (rate({counter}{{{', '.join(where)}}}[{window}]))"


def recorded(name: str) -> str:
    """A recording rule's series (manyeyes/monitoring/prometheus/recording.py), filtered by the selected variables."""
    selector = LEVELS[name.partition(":")[0]]
    return f"{name}{{{selector}}}" if selector else name


DATASOURCE = values.DataSourceRef(type_val="prometheus", uid="prometheus")
Any = TypeVar("Any", timeseries.Panel, stat.Panel, statetimeline.Panel, bargauge.Panel)


def build_panel(panel: DashboardPanel, number: int, position: models.GridPos) -> Builder[models.Panel]:
    """The panel at its place in the grid."""
    match panel.kind:
        case "timeseries":
            return _over_time(_common(timeseries.Panel(), panel, number, position), panel)
        case "stat":
            return _figure(_common(stat.Panel(), panel, number, position), panel)
        case "state-timeline":
            return _states(_common(statetimeline.Panel(), panel, number, position), panel)
        case "bargauge":
            return _bars(_common(bargauge.Panel(), panel, number, position), panel)


def _common(builder: Any, panel: DashboardPanel, number: int, position: models.GridPos) -> Any:
    builder = (
        builder.id(number)
        .title(panel.title)
        .description(panel.description)
        .datasource(DATASOURCE)
        .grid_pos(position)
        .unit(panel.unit)
        .min(0)
        .targets(
            [_target(ref, *query, panel) for ref, query in zip(ascii_uppercase, panel.queries.items(), strict=False)]
        )
    )
    if panel.no_value_text:
        builder = builder.no_value(panel.no_value_text)
    if panel.decimals is not None:
        builder = builder.decimals(panel.decimals)
    if panel.max_value is not None:
        builder = builder.max(panel.max_value)
    if panel.names:
        builder = builder.mappings([_names(panel)])
    return builder


def _target(ref: str, legend: str, expr: str, panel: DashboardPanel) -> prometheus.Dataquery:
    query = prometheus.Dataquery().ref_id(ref).datasource(DATASOURCE).expr(expr).legend_format(legend)
    query = query.editor_mode(QueryEditorMode.CODE)
    return query.instant() if panel.kind in ("stat", "bargauge") else query.range()


def _over_time(builder: timeseries.Panel, panel: DashboardPanel) -> timeseries.Panel:
    builder = (
        # An engine has the same colour in all panels whose legend is its name.
        builder.color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .line_width(1)
        .fill_opacity(8)
        .show_points(values.VisibilityMode.NEVER)
        .span_nulls(False)
        .legend(_legend())
        .tooltip(common.VizTooltipOptions().mode(values.TooltipDisplayMode.MULTI).sort(values.SortOrder.DESCENDING))
    )
    if panel.line_at is not None:
        dashed = common.GraphThresholdsStyleConfig().mode(values.GraphThresholdsStyleMode.DASHED)
        builder = builder.thresholds_style(dashed).thresholds(_thresholds(((0, "transparent"), (panel.line_at, "red"))))
    if panel.dashed:
        builder = builder.override_by_regexp(
            f"/^{panel.dashed}/",
            [
                models.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": "text"}),
                models.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [6, 6]}),
                models.DynamicConfigValue("custom.fillOpacity", 0),
            ],
        )
    return builder


def _figure(builder: stat.Panel, panel: DashboardPanel) -> stat.Panel:
    return (
        builder.color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .thresholds(_thresholds(panel.colours))
        .color_mode(values.BigValueColorMode.BACKGROUND)
        .graph_mode(values.BigValueGraphMode.NONE)
        .text_mode(values.BigValueTextMode.VALUE_AND_NAME)
        .wide_layout(True)
        .reduce_options(_last())
    )


def _bars(builder: bargauge.Panel, panel: DashboardPanel) -> bargauge.Panel:
    return (
        builder.color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .thresholds(_thresholds(panel.colours))
        .display_mode(values.BarGaugeDisplayMode.BASIC)
        .orientation(values.VizOrientation.HORIZONTAL)
        .name_placement(values.BarGaugeNamePlacement.TOP)
        .reduce_options(_last())
    )


def _states(builder: statetimeline.Panel, panel: DashboardPanel) -> statetimeline.Panel:
    return (
        builder.color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC))
        .line_width(0)
        .fill_opacity(80)
        .merge_values(True)
        .show_value(values.VisibilityMode.AUTO)
        .align_value(values.TimelineValueAlignment.LEFT)
        .row_height(0.8)
        .legend(_legend())
        .tooltip(common.VizTooltipOptions().mode(values.TooltipDisplayMode.SINGLE).sort(values.SortOrder.NONE))
    )


def _names(panel: DashboardPanel) -> models.ValueMap:
    return models.ValueMap(
        {
            str(value): models.ValueMappingResult(text=name, color=colour, index=index)
            for index, (value, name, colour) in enumerate(panel.names)
        }
    )


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)


def _legend() -> common.VizLegendOptions:
    return (
        common.VizLegendOptions()
        .show_legend(True)
        .display_mode(values.LegendDisplayMode.LIST)
        .placement(values.LegendPlacement.BOTTOM)
        .calcs([])
    )


def _thresholds(colours: tuple[tuple[float, str], ...]) -> dashboard.ThresholdsConfig:
    """The first colour begins at the lowest value, which Grafana writes as null."""
    steps = [models.Threshold(value=start, color=colour) for start, colour in colours]
    steps[0].value = None
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)
