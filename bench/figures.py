"""What `tidegate capacity` uses of docs/performance.md: `python -m bench` writes it after each run.

The report has the throughput of client, proxy and Triton on one machine whose cores are all busy. So what a proxy adds to the time
between two answers, times the cores, is its CPU time for a request. That is an upper bound: a core that idles counts too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tidegate.capacity.figures import MEASURED

SIZES = {"1 kB": 1_000, "100 kB": 100_000, "1 MB": 1_000_000}
CONNECTIONS = 64


def figures_of(report: str) -> dict[str, Any]:
    """Return the figures by name. Raises `ValueError`: a table of the report has another form."""
    found = re.split(r"^<!-- (\w+) -->\n", report, flags=re.MULTILINE)
    sections = dict(zip(found[1::2], found[2::2], strict=True))
    gateway = {
        (size, row[0]): [float(cell.replace(",", "")) if cell else 0.0 for cell in row[1:4]]
        for size, row in _gateway_rows(sections["gateway"])
    }
    cores = _cores(sections["gateway"])

    def added_us(column: int) -> list[list[float]]:
        return [
            [position, round(cores * 1e6 * (1 / row[column] - 1 / row[0]), 1)]
            for size, position in SIZES.items()
            for row in [gateway[size, f"answers/s at {CONNECTIONS} connections"]]
        ]

    def added_ms(column: int) -> list[list[float]]:
        return [[position, gateway[size, "added to direct, ms"][column]] for size, position in SIZES.items()]

    decide = [
        [int(rules.replace(",", "")), float(us)]
        for rules, us in re.findall(r"^\| ([\d,]+) \| ([\d.]+) \|", sections["decide"], re.MULTILINE)
    ]
    bundle = [
        [_whole(rules), 1000 * _whole(kilobytes)]
        for rules, kilobytes in re.findall(
            r"^\| ([\d,]+) \|(?:[^|]+\|){4} ([\d,]+) \|", sections["decide"], re.MULTILINE
        )
    ]
    values = {
        "decide_us": (decide, "decide"),
        "bundle_bytes": (bundle, "decide"),
        "variant_us": (_number(sections["decide"], r"Each variant of a split costs ([\d.]+) µs"), "decide"),
        "gateway_us": (added_us(2), "gateway"),
        "envoy_us": (added_us(1), "gateway"),
        "gateway_ms": (added_ms(2), "gateway"),
        "envoy_ms": (added_ms(1), "gateway"),
        "function_ms": (_number(sections["functions"], r"not the empty function's \| ([\d.]+)"), "functions"),
        "cold_start_ms": (_number(sections["functions"], r"\| together \| (\d+)"), "functions"),
    }
    if "resolver" in sections:
        micros = _number(sections["resolver"], r"takes \*\*(\d+) µs\*\* of CPU time")
        values["resolver_us"] = (micros, "resolver")
    if "scale" in sections:
        values["filters"] = (_filters(sections["scale"]), "scale")
    if not decide:
        raise ValueError("the section on deciding has no table of rules")
    return {name: {"value": value, "measured": _where(sections[section])} for name, (value, section) in values.items()}


def _gateway_rows(section: str) -> list[tuple[str, list[str]]]:
    rows, size = [], ""
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if (len(cells) == 6 and "ms" in cells[1]) or "answers/s" in line:
            size = cells[0] or size
            rows.append((size, cells[1:]))
    return rows


def _filters(section: str) -> list[list[float]]:
    """Return what Envoy takes with Tidegate's filters, without the decision, in what it takes alone, by size."""
    found = {
        (size, plane): float(cpu) - float(python)
        for size, plane, cpu, python in re.findall(
            r"^\| ([^|]+) \| ([^|]+) \|(?:[^|]+\|){4} (\d+) \| (\d+) \|", section, re.MULTILINE
        )
    }
    return [
        [position, round(found[size, "Envoy that decides"] / found[size, "plain Envoy"], 2)]
        for size, position in SIZES.items()
    ]


def _cores(section: str) -> int:
    return int(_number(section, r"(\d+) cores"))


def _whole(text: str) -> int:
    return int(text.replace(",", ""))


def _number(section: str, pattern: str) -> float:
    match = re.search(pattern, section)
    if match is None:
        raise ValueError(f"the report has nothing like {pattern!r}")
    return float(match[1])


def _where(section: str) -> str:
    match = re.search(r"^\*(\d{4}-.*)\.\*$", section, re.MULTILINE)
    return match[1] if match else ""


def write_figures(report: Path, file: Path = MEASURED) -> Mapping[str, Any]:
    found = figures_of(report.read_text(encoding="utf-8"))
    lines = ",\n".join(
        f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in found.items()
    )
    file.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    return found


if __name__ == "__main__":
    write_figures(Path("docs/performance.md"))
