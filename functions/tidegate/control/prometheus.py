"""Prometheus' text format (https://prometheus.io/docs/instrumenting/exposition_formats/), as far as a probe reads it."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)(?: -?[0-9]+)?")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a metric, which may be NaN or infinite. `labels` is the text between the braces."""

    metric: str
    labels: str
    value: float

    def label(self, *names: str) -> str | None:
        """The value of the first label that has one of some names; None where none has, or an empty one."""
        for name, value in _LABEL.findall(self.labels):
            if name in names and value:
                return _ESCAPED.sub(lambda match: "\n" if match[1] == "n" else match[1], value)
        return None


def parse_samples(text: str) -> list[Sample]:
    """Every sample of a text.

    Raises:
        ValueError: a line is not in the format.
    """
    found = []
    for line in text.split("\n"):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.rstrip())
        if match is None:
            raise ValueError("a line is not a sample of a metric")
        found.append(Sample(match[1], match[2] or "", float(match[3])))
    return found
