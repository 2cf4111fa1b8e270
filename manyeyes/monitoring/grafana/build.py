"""Writes dashboards/*.json: python -m manyeyes.monitoring.grafana.build

The files have the classic dashboard model of Grafana 12, which its file provider reads. They are built with Grafana's
Foundation SDK.
"""

import json
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import dashboard as sdk
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    GridPos,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from manyeyes.monitoring.grafana import cluster, engines, gateway, gpu, loadtest
from manyeyes.monitoring.grafana.panels import DATASOURCE, VARIABLES, Dashboard, DashboardRow, build_panel

FOLDER = Path(__file__).resolve().parents[3] / "monitoring/grafana/dashboards"
DASHBOARDS = (cluster.DASHBOARD, engines.DASHBOARD, gateway.DASHBOARD, loadtest.DASHBOARD, gpu.DASHBOARD)
COLUMNS = 24

ANNOTATIONS = (
    (
        "Alerts",
        'ALERTS{alertstate="firing"}',
        "red",
        {"titleFormat": "{{alertname}}", "textFormat": "{{pool}} {{engine}}"},
    ),
    ("Marks", "manyeyes_annotation", "blue", {"titleFormat": "{{text}}", "textFormat": ""}),
)
"""Spans on every panel, while a series has samples: name, query, colour, and Prometheus' fields that the SDK's type
lacks."""


def files() -> dict[Path, str]:
    """Every dashboard's file and its text."""
    return {FOLDER / f"{spec.name}.json": _text(dashboard(spec)) for spec in DASHBOARDS}


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def dashboard(spec: Dashboard) -> dict[str, Any]:
    """The whole dashboard, as JSON."""
    links = sdk.DashboardLink("").type(DashboardLinkType.DASHBOARDS).tags(["manyeyes"])
    builder = (
        sdk.Dashboard(spec.title)
        .uid(f"manyeyes-{spec.name}")
        .description(f"{spec.description} Made by python -m manyeyes.monitoring.grafana.build.")
        .tags(["manyeyes"])
        .readonly()
        .timezone("browser")
        .time(f"now-{spec.span}", "now")
        .refresh("10s")
        .tooltip(DashboardCursorSync.CROSSHAIR)  # one crosshair over all panels
        .link(links.include_vars(True).keep_time(True))  # the other dashboards, with the same selection and time
        .annotations([_annotation(name, query, colour) for name, query, colour, _ in ANNOTATIONS])
        .variables([_variable(name) for name in spec.variables])
    )
    _place_panels(builder, spec.rows)
    document: dict[str, Any] = json.loads(json.dumps(builder.build(), cls=JSONEncoder))
    for annotation, (_, _, _, formats) in zip(document["annotations"]["list"], ANNOTATIONS, strict=True):
        annotation.update(formats)
    return document


def _annotation(name: str, query: str, colour: str) -> sdk.AnnotationQuery:
    return sdk.AnnotationQuery().name(name).datasource(DATASOURCE).enable(True).icon_color(colour).expr(query)


def _variable(name: str) -> sdk.QueryVariable:
    """A selector above the panels for one, several or all values."""
    query: dict[str, object] = {"qryType": 1, "query": VARIABLES[name], "refId": f"variable-{name}"}
    return (
        sdk.QueryVariable(name)
        .label(name.capitalize())
        .datasource(DATASOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)  # engines come and go
        .sort(VariableSort.NATURAL_ASC)  # gpu-2 before gpu-10
        .multi(True)
        .include_all(True)
        .all_value(".+")
        .current(VariableOption(text=["All"], value=["$__all"]))
    )


def _place_panels(builder: sdk.Dashboard, rows: tuple[DashboardRow, ...]) -> None:
    """Places all panels and the headings of their rows, left to right and top to bottom."""
    number = y = 0
    for row in rows:
        number += 1
        builder.with_row(sdk.Row(row.title).id(number).grid_pos(GridPos(x=0, y=y, w=COLUMNS, h=1)))
        x, y = 0, y + 1
        height = 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, height = 0, y + height, 0
            number += 1
            builder.with_panel(build_panel(panel, number, GridPos(x=x, y=y, w=panel.width, h=panel.height)))
            x, height = x + panel.width, max(height, panel.height)
        y += height


if __name__ == "__main__":
    for file, text in files().items():
        file.write_text(text, encoding="utf-8")
