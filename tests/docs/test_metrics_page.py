"""docs/metrics.md and docs/grafana.json: the table, the dashboard and the queries are those of the code. The page's request is sent in
tests/e2e/test_metrics.py."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml
from tidegate.console.traffic import MOST_ROUTES, MOST_SERIES
from tidegate.metrics import Kind, Metric
from tidegate.metrics.__main__ import prometheus_table
from tidegate.metrics.grafana import dashboard_json
from tidegate.web.console.paths import METRICS

from tests.docs.blocks import ROOT, blocks

PAGE = "docs/metrics.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
DASHBOARD: Any = json.loads((ROOT / "docs" / "grafana.json").read_text(encoding="utf-8"))
SOURCES = ROOT / "functions" / "tidegate"

NAMES = {"tidegate_", "http_server_", "rpc_server_"}
EXPOSED = {metric.exposed.sample: metric.exposed for metric in Metric if metric.exposed is not None}

TARGET = {
    "type": "object",
    "required": ["refId", "expr", "legendFormat", "datasource"],
    "properties": {"refId": {"pattern": "^[A-Z]$"}, "expr": {"type": "string", "minLength": 1}},
}
GRID = {
    "type": "object",
    "required": ["x", "y", "w", "h"],
    "properties": {
        "x": {"minimum": 0, "maximum": 23},
        "w": {"minimum": 1, "maximum": 24},
        "h": {"minimum": 1},
        "y": {"minimum": 0},
    },
}
PANEL = {
    "type": "object",
    "required": ["id", "type", "title", "gridPos"],
    "properties": {
        "id": {"type": "integer", "minimum": 1},
        "type": {"enum": ["row", "timeseries"]},
        "gridPos": GRID,
        "targets": {"type": "array", "minItems": 1, "items": TARGET},
        "fieldConfig": {"type": "object", "required": ["defaults", "overrides"]},
        "options": {"type": "object", "required": ["legend", "tooltip"]},
    },
    "if": {"properties": {"type": {"const": "timeseries"}}},
    "then": {"required": ["targets", "fieldConfig", "options", "datasource"]},
    "else": {"required": ["collapsed", "panels"]},
}
SCHEMA = {
    "type": "object",
    "required": ["uid", "title", "schemaVersion", "panels", "templating", "time", "annotations"],
    "properties": {
        "uid": {"type": "string", "maxLength": 40},
        "schemaVersion": {"type": "integer", "minimum": 36},
        "graphTooltip": {"enum": [0, 1, 2]},
        "refresh": {"type": "string"},
        "time": {"type": "object", "required": ["from", "to"]},
        "panels": {"type": "array", "items": PANEL},
        "templating": {
            "type": "object",
            "required": ["list"],
            "properties": {"list": {"items": {"required": ["name", "type", "query"]}}},
        },
    },
}
"""What Grafana asks of a dashboard, of what this one has (docs/sources/developers/kinds/core/dashboard/schema-reference.md of its sources)."""


def queries() -> Iterator[str]:
    """Every query of the dashboard and of the page."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]
    for row in TEXT.partition("| question | query |")[2].partition("\n\n")[0].splitlines()[2:]:
        yield row.split("|", 2)[2].strip(" |").strip("`")


def test_the_table_and_the_dashboard_are_those_of_the_code() -> None:
    assert prometheus_table() in TEXT, "print it by `python -m tidegate.metrics prometheus`"
    current = (ROOT / "docs" / "grafana.json").read_text(encoding="utf-8")
    assert dashboard_json() == current, "write it by `python -m tidegate.metrics grafana > docs/grafana.json`"


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    jsonschema.validate(DASHBOARD, SCHEMA)
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
        assert len({target["refId"] for target in panel.get("targets", ())}) == len(panel.get("targets", ()))
    variables = {each["name"] for each in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD)))
    assert used - {"__rate_interval", "__all"} == variables


@pytest.mark.parametrize("query", list(queries()))
def test_each_query_names_metrics_and_labels_of_the_table(query: str) -> None:
    assert query.count("(") == query.count(")")
    assert query.count("{") == query.count("}")
    found = re.findall(r"\b((?:tidegate|http_server|rpc_server)_\w+)(?:\{([^}]*)\})?", query)
    assert found
    labels = set()
    for name, selected in found:
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        exposed = EXPOSED.get(name) or EXPOSED[base]
        assert (exposed.kind is Kind.HISTOGRAM) == (name not in EXPOSED), name
        assert set(re.findall(r"(\w+)(?:=~|!=|=)", selected)) <= set(exposed.labels), name
        labels |= set(exposed.labels)
    for grouped in re.findall(r"by \(([^)]*)\)", query):
        assert {each.strip() for each in grouped.split(",")} <= labels | {"le"}


@pytest.mark.parametrize("metric", [metric for metric in Metric if metric.exposed is not None])
def test_each_metric_is_exposed_and_named_in_the_table_alone(metric: Metric) -> None:
    assert metric.exposed is not None
    code = {path: path.read_text(encoding="utf-8") for path in SOURCES.rglob("*.py")}
    named = [
        path.relative_to(SOURCES).as_posix() for path, text in code.items() if f'"{metric.exposed.family}"' in text
    ]
    assert named == ["metrics/table.py"]
    assert f"Metric.{metric.name}," in code[SOURCES / "console" / "metrics.py"]


def test_the_configuration_of_prometheus_sends_the_operators_token() -> None:
    (block,) = [each for each in blocks(PAGE) if each.language == "yaml"]
    stack, agents = yaml.safe_load(block.text)["scrape_configs"]
    # https://prometheus.io/docs/prometheus/latest/configuration/configuration/#scrape_config: the type is Bearer, the path /metrics.
    assert stack["authorization"] == {"credentials_file": "tidegate.token"}
    assert METRICS == "/metrics"
    assert "authorization" not in agents
    assert all(target.endswith(":8003") for target in agents["static_configs"][0]["targets"])


def test_the_bounds_are_those_of_the_code() -> None:
    assert f"{MOST_SERIES:,}".replace(",", " ") + " combinations" in TEXT
    assert f"{MOST_ROUTES:,}".replace(",", " ") + " combinations" in TEXT
