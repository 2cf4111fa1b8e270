"""A panel as data -> a panel of Grafana's Foundation SDK, one function for each kind.

https://grafana.github.io/grafana-foundation-sdk/ : its builders know Grafana's schema, so that a wrong field or value fails here.
"""

from string import ascii_uppercase
from typing import TypeVar

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as values
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import QueryEditorMode

from manyeyes.monitoring.grafana.panel import Panel

DATASOURCE = values.DataSourceRef(type_val="prometheus", uid="prometheus")
Any = TypeVar("Any", timeseries.Panel, stat.Panel, statetimeline.Panel, bargauge.Panel)


def made(panel: Panel, number: int, place: models.GridPos) -> Builder[models.Panel]:
    """The panel in its place."""
    match panel.kind:
        case "timeseries":
            return _over_time(_common(timeseries.Panel(), panel, number, place), panel)
        case "stat":
            return _figure(_common(stat.Panel(), panel, number, place), panel)
        case "state-timeline":
            return _states(_common(statetimeline.Panel(), panel, number, place), panel)
        case "bargauge":
            return _bars(_common(bargauge.Panel(), panel, number, place), panel)


def _common(builder: Any, panel: Panel, number: int, place: models.GridPos) -> Any:
    builder = (
        builder.id(number)
        .title(panel.title)
        .description(panel.description)
        .datasource(DATASOURCE)
        .grid_pos(place)
        .unit(panel.unit)
        .min(0)
        .targets([_target(ref, *one, panel) for ref, one in zip(ascii_uppercase, panel.queries.items(), strict=False)])
    )
    if panel.none:
        builder = builder.no_value(panel.none)
    if panel.decimals is not None:
        builder = builder.decimals(panel.decimals)
    if panel.most is not None:
        builder = builder.max(panel.most)
    if panel.names:
        builder = builder.mappings([_names(panel)])
    return builder


def _target(ref: str, legend: str, expr: str, panel: Panel) -> prometheus.Dataquery:
    query = prometheus.Dataquery().ref_id(ref).datasource(DATASOURCE).expr(expr).legend_format(legend)
    query = query.editor_mode(QueryEditorMode.CODE)
    return query.instant() if panel.kind in ("stat", "bargauge") else query.range()


def _over_time(builder: timeseries.Panel, panel: Panel) -> timeseries.Panel:
    builder = (
        # An engine has the same colour wherever its name is the legend.
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


def _figure(builder: stat.Panel, panel: Panel) -> stat.Panel:
    return (
        builder.color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .thresholds(_thresholds(panel.colours))
        .color_mode(values.BigValueColorMode.BACKGROUND)
        .graph_mode(values.BigValueGraphMode.NONE)
        .text_mode(values.BigValueTextMode.VALUE_AND_NAME)
        .wide_layout(True)
        .reduce_options(_last())
    )


def _bars(builder: bargauge.Panel, panel: Panel) -> bargauge.Panel:
    return (
        builder.color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .thresholds(_thresholds(panel.colours))
        .display_mode(values.BarGaugeDisplayMode.BASIC)
        .orientation(values.VizOrientation.HORIZONTAL)
        .name_placement(values.BarGaugeNamePlacement.TOP)
        .reduce_options(_last())
    )


def _states(builder: statetimeline.Panel, panel: Panel) -> statetimeline.Panel:
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


def _names(panel: Panel) -> models.ValueMap:
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
    """The first colour holds from the lowest value on, which Grafana writes as null."""
    steps = [models.Threshold(value=start, color=colour) for start, colour in colours]
    steps[0].value = None
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)
