"""The Grafana dashboard of a stack and its agents, made from the table of metrics.

It is in the format that Grafana imports
(https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/). It has no address and no data source
of its own: who imports it picks one.
"""

from __future__ import annotations

import json
from typing import Any

from tidegate.metrics.definitions import Label
from tidegate.metrics.panels import Panel, rows, sample_of
from tidegate.metrics.table import Metric

Json = dict[str, Any]

SCHEMA_VERSION = 39
"""Grafana 10.4's, which later ones migrate."""

WIDTH, HEIGHT = 12, 8
DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def dashboard_json() -> str:
    """Return the text of docs/grafana.json."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


def dashboard() -> Json:
    """Return the dashboard."""
    panels: list[Json] = []
    top = 0
    for title, row in rows():
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": title,
                "collapsed": False,
                "gridPos": {"x": 0, "y": top, "w": 2 * WIDTH, "h": 1},
                "panels": [],
            }
        )
        top += 1
        for place, panel in enumerate(row):
            panels.append(_graph(len(panels) + 1, panel, place % 2 * WIDTH, top + place // 2 * HEIGHT))
        top += (len(row) + 1) // 2 * HEIGHT
    objectives = f"label_values({sample_of(Metric.REQUESTS)}, {Label.OBJECTIVE})"
    return {
        "uid": "tidegate",
        "title": "Tidegate",
        "description": "Requests, rules, models and servers; made by `python -m tidegate.metrics grafana`.",
        "tags": ["tidegate"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0},
                {
                    "name": "objective",
                    "label": "Objective",
                    "type": "query",
                    "datasource": DATA_SOURCE,
                    "query": {"query": objectives, "refId": "objectives"},
                    "refresh": 2,
                    "sort": 1,
                    "multi": True,
                    "includeAll": True,
                    "allValue": ".*",
                    "current": {"text": "All", "value": "$__all"},
                    "hide": 0,
                },
            ]
        },
        "annotations": {"list": []},
        "panels": panels,
    }


def _graph(number: int, panel: Panel, left: int, top: int) -> Json:
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "datasource": DATA_SOURCE,
        "gridPos": {"x": left, "y": top, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "custom": {
                    "fillOpacity": 30 if panel.stacked else 0,
                    "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
                },
            },
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": DATA_SOURCE,
                "editorMode": "code",
                "range": True,
                "expr": expression,
                "legendFormat": legend,
            }
            for place, (legend, expression) in enumerate(panel.lines)
        ],
    }
