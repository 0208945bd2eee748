"""Prints what is made from the table of metrics.

python -m tidegate.metrics               the table of docs/functions.md: CloudWatch
python -m tidegate.metrics prometheus    the table of docs/metrics.md
python -m tidegate.metrics grafana       docs/grafana.json
"""

from __future__ import annotations

import sys

from tidegate.metrics.grafana import dashboard_json
from tidegate.metrics.table import Metric


def cloudwatch_table() -> str:
    """Return the table of docs/functions.md."""
    lines = ["| metric | unit | from | by | meaning |", "|---|---|---|---|---|"]
    for metric in Metric:
        if metric.emf is None:
            continue
        by = "; ".join(
            " and ".join(each.lower() for each in dimensions[1:] or dimensions) for dimensions in metric.dimensions
        )
        lines.append(
            f"| `{metric.metric_name}` | {metric.unit} | {', '.join(metric.functions)} | {by} | {metric.meaning} |"
        )
    return "\n".join([*lines, ""])


def prometheus_table() -> str:
    """Return the table of docs/metrics.md."""
    lines = ["| metric | kind | labels | from | meaning |", "|---|---|---|---|---|"]
    for metric in Metric:
        if (exposed := metric.exposed) is not None:
            labels = ", ".join(f"`{label}`" for label in exposed.labels)
            emitters = ", ".join(exposed.emitters)
            lines.append(f"| `{exposed.sample}` | {exposed.kind} | {labels} | {emitters} | {metric.help} |")
    return "\n".join([*lines, ""])


TEXTS = {"cloudwatch": cloudwatch_table, "prometheus": prometheus_table, "grafana": dashboard_json}

if __name__ == "__main__":
    sys.stdout.write(TEXTS[sys.argv[1] if len(sys.argv) > 1 else "cloudwatch"]())
