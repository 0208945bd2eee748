"""What the benchmarks measured for each request: `measured.json`, which `python -m bench` writes from docs/performance.md."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from tidegate.errors import SettingsError
from tidegate.files import read_regular

MEASURED = Path(__file__).with_name("measured.json")
MOST_BYTES = 1 << 20

Curve = tuple[tuple[float, float], ...]
"""Points with ascending positions, at least one."""

CURVES = {
    "decide_us": "one decision, by the number of rules of an objective",
    "bundle_bytes": "size of a bundle, by its rules",
    "gateway_us": "CPU time of the gateway, by the mean size of request and answer in bytes",
    "envoy_us": "CPU time of Envoy, by the same size",
    "gateway_ms": "what the gateway adds to the median latency, by the same size",
    "envoy_ms": "what Envoy adds to it",
}
NUMBERS = {
    "variant_us": "each variant of a split that is decided",
    "function_ms": "what the gateway's function adds at one whole core, without the platform",
    "cold_start_ms": "an environment's start and first answer",
}
OPTIONAL = {
    "resolver_us": "CPU time of a resolver for one decision of Envoy's requests",
    "filters": "CPU time of Envoy with Tidegate's filters, in that of Envoy without them, by the same size",
}
"""A number and a curve that a report may lack."""


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures by name, and of each where and when it was measured."""

    curves: Mapping[str, Curve]
    numbers: Mapping[str, float]
    measured: Mapping[str, str]

    def at(self, name: str, position: float) -> float:
        """Return the value of a curve: between two points on the line through them, above the last one on the last line, and
        below the first one its value. `decide_us` is over the logarithm of the position."""
        curve = self.curves[name]
        scale = math.log if name == "decide_us" else float
        if position <= curve[0][0] or len(curve) == 1:
            return curve[0][1]
        (x0, y0), (x1, y1) = next(
            ((before, after) for before, after in pairwise(curve) if position <= after[0]), (curve[-2], curve[-1])
        )
        return y0 + (y1 - y0) * (scale(position) - scale(x0)) / (scale(x1) - scale(x0))


def read_figures(file: Path = MEASURED) -> Figures:
    """Read the figures of a file.

    Raises:
        SettingsError: it cannot be read, or a figure is missing or malformed; the message names it.
    """
    try:
        value = json.loads(read_regular(file, MOST_BYTES))
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{file} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise SettingsError(f"{file} must be a JSON object of figures by name")
    unknown = sorted(value.keys() - CURVES.keys() - NUMBERS.keys() - OPTIONAL.keys())
    if unknown:
        raise SettingsError(
            f"{file}: {unknown[0]!r} is not a figure; there are {', '.join((*CURVES, *NUMBERS, *OPTIONAL))}"
        )
    given = {name for name in OPTIONAL if name in value}
    curves = {name: _curve(file, name, _value(file, name, value)) for name in (*CURVES, *given & {"filters"})}
    named = [*NUMBERS, *given & {"resolver_us"}]
    numbers = {name: _number(file, name, _value(file, name, value)) for name in named}
    return Figures(curves, numbers, {name: str(value[name].get("measured", "")) for name in (*curves, *numbers)})


def _value(file: Path, name: str, value: Mapping[str, Any]) -> Any:
    entry = value.get(name)
    if not isinstance(entry, dict) or "value" not in entry:
        raise SettingsError(
            f'{file}: {name!r} must be an object such as {{"value": 1.5, "measured": "when and where"}}'
        )
    return entry["value"]


def _curve(file: Path, name: str, points: Any) -> Curve:
    form = f"{file}: {name!r} must have pairs of numbers as its value, such as [[1000, 170], [100000, 300]], positions ascending"
    if not isinstance(points, Sequence) or isinstance(points, str) or not points:
        raise SettingsError(form)
    if not all(isinstance(each, list) and len(each) == 2 and all(map(_is_figure, each)) for each in points):
        raise SettingsError(form)
    if any(after[0] <= before[0] for before, after in pairwise(points)) or points[0][0] <= 0:
        raise SettingsError(form)
    return tuple((float(x), float(y)) for x, y in points)


def _number(file: Path, name: str, value: Any) -> float:
    if not _is_figure(value):
        raise SettingsError(f"{file}: {name!r} must have a number of at least 0 as its value")
    return float(value)


def _is_figure(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value >= 0
