"""Writes dashboards/*.json from cluster.py and gateway.py: python -m monitoring.grafana.build

The form is Grafana 12's classic dashboard (schemaVersion 42), as its file provider reads it.
"""

import json
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from monitoring.grafana import cluster, gateway
from monitoring.grafana.panel import VARIABLES, Dashboard, Panel, Row

FOLDER = Path(__file__).parent / "dashboards"
DASHBOARDS = (cluster.DASHBOARD, gateway.DASHBOARD)
DATASOURCE = {"type": "prometheus", "uid": "prometheus"}
COLUMNS = 24
HEIGHT = 8

Json = dict[str, Any]

OTHERS: Json = {
    "type": "dashboards",
    "title": "",
    "tags": ["manyeyes"],
    "asDropdown": False,
    "includeVars": True,
    "keepTime": True,
    "targetBlank": False,
}
"""The other dashboards, above the panels, with the same choice and time."""


def files() -> dict[Path, str]:
    """Every dashboard's file and its text."""
    return {FOLDER / f"{one.name}.json": _text(dashboard(one)) for one in DASHBOARDS}


def _text(document: Json) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def dashboard(one: Dashboard) -> Json:
    """The whole dashboard."""
    return {
        "uid": f"manyeyes-{one.name}",
        "title": one.title,
        "description": f"{one.description} Made by python -m monitoring.grafana.build.",
        "tags": ["manyeyes"],
        "schemaVersion": 42,
        "editable": False,
        "timezone": "browser",
        "time": {"from": "now-30m", "to": "now"},
        "refresh": "10s",
        "graphTooltip": 1,  # one crosshair over all panels
        "annotations": {"list": []},
        "links": [OTHERS],
        "templating": {"list": [variable(name, query) for name, query in VARIABLES.items()]},
        "panels": panels(one.rows),
    }


def variable(name: str, query: str) -> Json:
    """A choice of one, several or all, above the panels."""
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"qryType": 1, "query": query, "refId": f"variable-{name}"},
        "refresh": 2,  # whenever the time range changes: engines come and go
        "sort": 7,  # gpu-2 before gpu-10
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def panels(rows: tuple[Row, ...]) -> list[Json]:
    """All panels and the headings of their rows, laid out left to right, top to bottom."""
    made: list[Json] = []
    y = 0
    for row in rows:
        place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        made.append(
            {"id": len(made) + 1, "type": "row", "title": row.title, "collapsed": False, "gridPos": place, "panels": []}
        )
        x, y = 0, y + 1
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y = 0, y + HEIGHT
            place = {"x": x, "y": y, "w": panel.width, "h": HEIGHT}
            made.append({"id": len(made) + 1, **panel_json(panel), "gridPos": place})
            x += panel.width
        y += HEIGHT
    return made


def panel_json(panel: Panel) -> Json:
    """One panel, without its place."""
    field, options = {"timeseries": _timeseries, "stat": _stat, "state-timeline": _state_timeline}[panel.kind](panel)
    targets = [
        {
            "refId": ref,
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": expr,
            "legendFormat": legend,
            "instant": panel.kind == "stat",
            "range": panel.kind != "stat",
        }
        for ref, (legend, expr) in zip(ascii_uppercase, panel.queries.items(), strict=False)
    ]
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, **field}, "overrides": []},
        "options": options,
        "targets": targets,
    }


def _timeseries(panel: Panel) -> tuple[Json, Json]:
    field: Json = {
        "color": {"mode": "palette-classic-by-name"},  # an engine has the same colour wherever its name is the legend
        "custom": {"lineWidth": 1, "fillOpacity": 8, "showPoints": "never", "spanNulls": False},
    }
    if panel.most is not None:
        field["max"] = panel.most
    if panel.line_at is not None:
        field["custom"]["thresholdsStyle"] = {"mode": "dashed"}
        field["thresholds"] = _thresholds(((0, "transparent"), (panel.line_at, "red")))
    return field, {
        "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def _stat(panel: Panel) -> tuple[Json, Json]:
    return {"color": {"mode": "thresholds"}, "thresholds": _thresholds(panel.colours)}, {
        "colorMode": "background",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "percentChangeColorMode": "standard",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "showPercentChange": False,
        "textMode": "value_and_name",
        "wideLayout": True,
    }


def _state_timeline(panel: Panel) -> tuple[Json, Json]:
    names = {
        str(value): {"index": index, "text": name, "color": colour}
        for index, (value, name, colour) in enumerate(panel.names)
    }
    return {
        "color": {"mode": "palette-classic"},
        "custom": {"lineWidth": 0, "fillOpacity": 80},
        "mappings": [{"type": "value", "options": names}],
    }, {
        "mergeValues": True,
        "showValue": "auto",
        "alignValue": "left",
        "rowHeight": 0.8,
        "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []},
        "tooltip": {"mode": "single", "sort": "none"},
    }


def _thresholds(colours: tuple[tuple[float, str], ...]) -> Json:
    """The first colour holds from the lowest value on, which Grafana writes as null."""
    steps: list[Json] = [{"color": colour, "value": start} for start, colour in colours]
    steps[0]["value"] = None
    return {"mode": "absolute", "steps": steps}


if __name__ == "__main__":
    for file, text in files().items():
        file.write_text(text, encoding="utf-8")
