"""The distributions of the differences of shadows' answers, as SVG: for each pair a panel of histograms."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tidegate.analysis.pictures.svg import BOLD, Picture, shortened
from tidegate.shadows.pair_tally import PairTally
from tidegate.shadows.report import number, targets, worst_first
from tidegate.shadows.sketch import Distribution

MOST_OUTPUTS = 6
"""Outputs of a pair that are drawn, the worst first."""

WIDTH = 980.0
MARGIN = 24.0
TITLE = 56.0
HEAD = 44.0
CHART = (294.0, 150.0)
"""The place of a histogram, with its texts."""

BARS = (270.0, 70.0)
GAP = 25.0
_MOST_BARS = 40
_EVEN_BARS = 20
_BAR_TOP = 30.0
_ENDS = 16.0
"""The width of the bars of zero and of infinity, which have no place on an axis of powers."""


class _Chart(NamedTuple):
    """A histogram: on an even axis from `lowest` to 1, or without that on an axis of powers."""

    title: str
    numbers: Distribution
    lowest: float | None = None


class _Bar(NamedTuple):
    x: float
    width: float
    numbers: int
    words: str


def shadows_svg(tallies: Sequence[PairTally]) -> str:
    panels = [(tally, list(_charts(tally))) for tally in tallies]
    heights = [HEAD + CHART[1] * max(1, math.ceil(len(charts) / 3)) + GAP for _, charts in panels]
    title = "Differences of shadows' answers"
    described = f"{len(panels)} pairs of targets, each with histograms of its latency ratio, rankings and errors."
    picture = Picture(WIDTH, TITLE + sum(heights) + (0 if panels else HEAD), title, described)
    picture.text(MARGIN, 32, title, "ink bold")
    if not panels:
        picture.text(MARGIN, TITLE + 8, "There are no shadows.", "soft")
    top = TITLE
    for (tally, charts), height in zip(panels, heights, strict=True):
        width = WIDTH - 2 * MARGIN
        name = f"{tally.pair.objective}, rule {tally.pair.rule}"
        picture.text(MARGIN, top + 14, shortened(name, width * BOLD), "ink bold")
        picture.text(MARGIN, top + 32, shortened(targets(tally), width), "soft")
        if not charts:
            picture.text(MARGIN, top + HEAD + 16, "No two answers were compared.", "soft")
        for place, chart in enumerate(charts):
            row, column = divmod(place, 3)
            _draw(picture, MARGIN + column * (CHART[0] + GAP), top + HEAD + row * CHART[1], chart)
        top += height
    return picture.render()


def _charts(tally: PairTally) -> Iterator[_Chart]:
    if tally.ratio.count:
        yield _Chart("latency ratio, shadow to primary", tally.ratio)
    if tally.overlap.count:
        yield _Chart("overlap of the rankings", tally.overlap, 0.0)
    if tally.tau.count:
        yield _Chart("Kendall's tau", tally.tau, -1.0)
    for name, output in worst_first(tally)[:MOST_OUTPUTS]:
        if output.relative.count:
            yield _Chart(f"{name}: relative error", output.relative)
            yield _Chart(f"{name}: absolute error", output.absolute)


def _draw(picture: Picture, left: float, top: float, chart: _Chart) -> None:
    numbers, bottom = chart.numbers, top + _BAR_TOP + BARS[1]
    picture.text(left, top + 18, shortened(chart.title, BARS[0]), "ink small")
    ends, bars = _powers(numbers) if chart.lowest is None else ((chart.lowest, 1.0), _even(numbers, chart.lowest))
    most = max(bar.numbers for bar in bars)
    for bar in bars:
        height = max(1.0, BARS[1] * bar.numbers / most)
        tip = f"{bar.numbers:,} of {numbers.count:,}: {bar.words}"
        picture.rectangle(left + bar.x, bottom - height, max(1.0, bar.width - 1), height, "c0", tip=tip)
    picture.line(left, bottom, left + BARS[0], bottom, "ink")
    has_zeros = chart.lowest is None and numbers.quantile(0.0) == 0
    for x, text, anchor in (
        (0.0, "0" if has_zeros else "", "start"),
        (_ENDS if has_zeros else 0.0, number(ends[0]) if ends and ends[0] < ends[1] else "", "start"),
        (BARS[0] - (_ENDS if numbers.infinite else 0.0), number(ends[1]) if ends else "", "end"),
        (BARS[0], "∞" if numbers.infinite else "", "end"),
    ):
        picture.text(left + x, bottom + 14, text, "soft small", anchor=anchor)
    shown = " · ".join(f"p{100 * share:g} {number(numbers.quantile(share))}" for share in (0.05, 0.5, 0.99))
    picture.text(left, bottom + 30, shown, "soft small")


def _even(numbers: Distribution, low: float) -> list[_Bar]:
    """Return the bars of an even axis from `low` to 1, each a twentieth of it."""
    width, counts = BARS[0] / _EVEN_BARS, [0] * _EVEN_BARS
    for each in numbers.bins():
        place = math.floor((each.value - low) / (1 - low) * _EVEN_BARS + 1e-9)
        counts[min(_EVEN_BARS - 1, place)] += each.numbers
    edges = [number(low + (1 - low) * place / _EVEN_BARS) for place in range(_EVEN_BARS + 1)]
    return [
        _Bar(place * width, width, count, f"{edges[place]} to {edges[place + 1]}")
        for place, count in enumerate(counts)
        if count
    ]


def _powers(numbers: Distribution) -> tuple[tuple[float, float] | None, list[_Bar]]:
    """Return the ends of an axis of powers (None: there is no number on it), and the bars, with those of zero and infinity."""
    positive = [each for each in numbers.bins() if each.value > 0]
    zeros = sum(each.numbers for each in numbers.bins()) - sum(each.numbers for each in positive)
    left, right = _ENDS if zeros else 0.0, BARS[0] - (_ENDS if numbers.infinite else 0.0)
    bars = [_Bar(0.0, _ENDS, zeros, "0")] if zeros else []
    if numbers.infinite:
        bars.append(_Bar(right, _ENDS, numbers.infinite, "infinite"))
    if not positive:
        return None, bars
    low, high = positive[0].value, positive[-1].value
    span = math.log(high / low)
    places = _MOST_BARS if span else 1
    counts: Counter[int] = Counter()
    for each in positive:
        counts[min(places - 1, int(math.log(each.value / low) / span * places)) if span else 0] += each.numbers
    width = (right - left) / places
    edges = [number(low * math.exp(span * place / places)) for place in range(places + 1)]
    bars += [
        _Bar(left + place * width, width, count, f"{edges[place]} to {edges[place + 1]}")
        for place, count in counts.items()
    ]
    return (low, high), bars
