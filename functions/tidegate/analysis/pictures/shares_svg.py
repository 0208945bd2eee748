"""The counted shares of splits and experiments beside the configured ones, as SVG: one panel each."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, log10

from tidegate.analysis.figures import percent
from tidegate.analysis.pictures.svg import Picture, shortened
from tidegate.analysis.replay.shares import Shares, VariantShare, Verdict

WIDTH = 980.0
MARGIN = 24.0
TITLE = 68.0
HEAD = 24.0
ROW = 28.0
FOOT = 26.0
GAP = 22.0

LABEL = (24.0, 186.0)
BAR = (222.0, 300.0)
ACTUAL, CONFIGURED = 604.0, 686.0
"""The right edges of the two columns of figures."""

DIFFERENCE = (716.0, 240.0)
"""Left edge and width of the differences."""

_LEGEND = (
    "Bars: the counted share; the dark line across is the configured one. Right: counted less configured, in percentage "
    "points, with its 95 % confidence interval (Wilson)."
)


def shares_svg(shares: Sequence[Shares]) -> str:
    heights = [HEAD * 2 + ROW * len(each.variants) + FOOT for each in shares]
    height = TITLE + sum(heights) + GAP * len(heights) + (GAP + 16 if shares else ROW * 2)
    picture = Picture(WIDTH, height, "Counted and configured shares", _description(shares))
    picture.text(MARGIN, 32, "Counted and configured shares", "ink bold")
    if not shares:
        picture.text(MARGIN, TITLE + 8, "No context of the log reached a split or an experiment.", "soft")
    top = TITLE
    for each, taken in zip(shares, heights, strict=True):
        _panel(picture, top, each)
        top += taken + GAP
    if shares:
        picture.text(MARGIN, height - 16, _LEGEND, "soft small")
    return picture.render()


def _panel(picture: Picture, top: float, shares: Shares) -> None:
    heading = f"{shares.race.objective} · {shares.race.rule}"
    picture.text(MARGIN, top, shortened(heading, WIDTH - 2 * MARGIN), "ink bold")
    colour = "c5 small bold" if shares.verdict is Verdict.MISMATCH else "soft small"
    picture.text(MARGIN, top + 18, shares.words(), colour)
    head = top + 18 + HEAD
    picture.text(BAR[0], head, "counted, 0–100 %", "soft small")
    picture.text(ACTUAL, head, "counted", "soft small", anchor="end")
    picture.text(CONFIGURED, head, "configured", "soft small", anchor="end")
    reach = _reach(shares.variants)
    middle = DIFFERENCE[0] + DIFFERENCE[1] / 2
    picture.text(DIFFERENCE[0], head, f"−{reach:g}", "soft small")
    picture.text(middle, head, "0", "soft small", anchor="middle")
    picture.text(DIFFERENCE[0] + DIFFERENCE[1], head, f"+{reach:g} points", "soft small", anchor="end")
    bottom = head + 6 + ROW * len(shares.variants)
    for x in (DIFFERENCE[0], DIFFERENCE[0] + DIFFERENCE[1]):
        picture.line(x, head + 6, x, bottom, "grid")
    picture.line(middle, head + 6, middle, bottom, "ink")
    for place, variant in enumerate(shares.variants):
        _row(picture, head + 6 + ROW * (place + 0.5), variant, place, reach)


def _row(picture: Picture, y: float, variant: VariantShare, place: int, reach: float) -> None:
    colour = f"c{place % 5}"
    picture.text(LABEL[0], y + 4, shortened(variant.variant, LABEL[1]), "ink")
    left, width = BAR
    tip = (
        f"{variant.variant}: counted {percent(variant.actual)} ({percent(variant.low)}–{percent(variant.high)}), "
        f"configured {percent(variant.configured)}"
    )
    picture.rectangle(left, y - 7, width, 14, "card", radius=2)
    picture.rectangle(left, y - 7, width * variant.actual, 14, colour, tip=tip, radius=2)
    picture.line(left + width * variant.configured, y - 11, left + width * variant.configured, y + 11, "ink")
    picture.text(ACTUAL, y + 4, percent(variant.actual), "ink", anchor="end")
    picture.text(CONFIGURED, y + 4, percent(variant.configured), "soft", anchor="end")
    low, at, high = (_x(share - variant.configured, reach) for share in (variant.low, variant.actual, variant.high))
    picture.line(low, y, high, y, "ink")
    for x in (low, high):
        picture.line(x, y - 4, x, y + 4, "ink")
    picture.rectangle(at - 4, y - 4, 8, 8, colour, tip=tip, radius=4)


def _x(difference: float, reach: float) -> float:
    return DIFFERENCE[0] + DIFFERENCE[1] * (0.5 + 100 * difference / reach / 2)


def _reach(variants: Sequence[VariantShare]) -> float:
    """Return the reach of the axis of differences in percentage points: 1, 2 or 5 times a power of ten."""
    most = 100 * max(max(abs(each.low - each.configured), abs(each.high - each.configured)) for each in variants)
    most = max(most, 1e-6)
    power = 10.0 ** floor(log10(most))
    return next(step * power for step in (1, 2, 5, 10) if ceil(most / power * 1e6) <= step * 1e6)


def _description(shares: Sequence[Shares]) -> str:
    mismatches = sum(each.verdict is Verdict.MISMATCH for each in shares)
    return (
        f"{len(shares)} splits and experiments, {mismatches} of them with a sample ratio mismatch. Each has a row per "
        "variant with its counted and its configured share, and the difference with a 95 % confidence interval."
    )
