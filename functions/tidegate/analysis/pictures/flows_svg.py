"""The flows from old to new targets as SVG: one Sankey diagram per objective, as thick as the shares are large."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tidegate.analysis.compare.shares import ObjectiveShares
from tidegate.analysis.figures import percent
from tidegate.analysis.pictures.svg import PALETTE, Picture, band_path, shortened

WIDTH = 980.0
MARGIN = 24.0
TITLE = 68.0
HEAD = 56.0
GAP = 34.0

LEFT, RIGHT, NODE = 300.0, 666.0, 14.0
"""The left edges of the two columns of nodes, and the width of a node."""

LABEL_WIDTH = 252.0
LABEL_HEIGHT = 34.0
NODE_GAP = 10.0

WHOLE = 240.0
"""The height of all of an objective's traffic."""

THINNEST = 1.2
MOST_TARGETS = 16
"""Most targets that are drawn; the smallest of more are drawn as one."""

REST = "(all other targets)"

UNSERVED_COLOUR, REST_COLOUR = 5, 6
"""The colours of traffic that is not served (red), and of the smallest targets together."""

TARGET_COLOURS = [colour for colour in range(PALETTE) if colour not in (UNSERVED_COLOUR, REST_COLOUR)]

_LEGEND = (
    "In colour: what another target serves, in the colour of the new one, or the same target with other settings. Red: not served. "
    "Grey: unchanged."
)

Bands = Mapping[tuple[str, str, bool], float]
"""Shares by old target, new target, and whether anything changes."""


@dataclass(slots=True)
class _Node:
    """A target in one column: the upper edge and the height of its bar, and how far down its bands have come."""

    top: float
    height: float
    taken: float = 0.0


def flows_svg(objectives: Sequence[ObjectiveShares]) -> str:
    """Return the picture of the objectives in which anything moves or is retuned, one below the other."""
    shown = [each for each in objectives if each.moved or each.retuned]
    panels = [_Panel(each) for each in shown]
    height = TITLE + sum(panel.height + GAP for panel in panels) + (12 if panels else LABEL_HEIGHT)
    picture = Picture(WIDTH, height, "Flows from old to new targets", _description(shown))
    picture.text(MARGIN, 32, "Flows from old to new targets", "ink bold")
    if not panels:
        picture.text(MARGIN, TITLE + 4, "Nothing moves: every request is served as before.", "soft")
    top = TITLE
    for panel in panels:
        panel.draw(picture, top)
        top += panel.height + GAP
    if panels:
        picture.text(MARGIN, height - 16, _LEGEND, "soft small")
    return picture.render()


class _Panel:
    def __init__(self, shares: ObjectiveShares) -> None:
        self._shares = shares
        self._bands = _few(_bands(shares))
        # The largest first, unserved traffic last; the same order in both columns crosses the fewest bands.
        sums = _sums(self._bands, 0), _sums(self._bands, 1)
        names = dict.fromkeys([*sums[0], *sums[1]])
        self._order = sorted(
            names, key=lambda name: (name.startswith("("), -max(sums[0].get(name, 0), sums[1].get(name, 0)), name)
        )
        self._sums = sums
        columns = [[max(LABEL_HEIGHT, self._height(side, name)) + NODE_GAP for name in sums[side]] for side in (0, 1)]
        self.height = HEAD + max(map(sum, columns))

    def draw(self, picture: Picture, top: float) -> None:
        shares = self._shares
        picture.text(MARGIN, top, shortened(shares.objective, WIDTH - 2 * MARGIN), "ink bold")
        picture.text(MARGIN, top + 18, headline(shares), "soft small")
        picture.text(LEFT + NODE, top + 40, "old", "soft small", anchor="end")
        picture.text(RIGHT, top + 40, "new", "soft small")
        columns = [self._column(side, top + HEAD) for side in (0, 1)]
        place = {name: number for number, name in enumerate(self._order)}
        for (old, new, changes), share in sorted(
            self._bands.items(), key=lambda each: (place[each[0][0]], place[each[0][1]], each[0][2])
        ):
            self._band(picture, columns[0][old], columns[1][new], (old, new, changes), share)
        for side in (0, 1):
            for name, node in columns[side].items():
                self._node(picture, side, name, node)

    def _thickness(self, share: float) -> float:
        return max(THINNEST, WHOLE * share)

    def _height(self, side: int, name: str) -> float:
        return sum(self._thickness(share) for band, share in self._bands.items() if band[side] == name)

    def _column(self, side: int, top: float) -> dict[str, _Node]:
        nodes = {}
        for name in self._order:
            if name in self._sums[side]:
                height = self._height(side, name)
                slot = max(LABEL_HEIGHT, height)
                nodes[name] = _Node(top + (slot - height) / 2, height)
                top += slot + NODE_GAP
        return nodes

    def _band(self, picture: Picture, old: _Node, new: _Node, band: tuple[str, str, bool], share: float) -> None:
        thickness = self._thickness(share)
        ends = (LEFT + NODE, old.top + old.taken + thickness / 2, RIGHT, new.top + new.taken + thickness / 2)
        old.taken += thickness
        new.taken += thickness
        was, now, changes = band
        words = f"{was} → {now}" if was != now else f"{was}, with other settings" if changes else f"{was}, unchanged"
        kind = f"flow {self._colour(now)}" if changes else "flow soft"
        picture.path(band_path(*ends, thickness), kind, tip=f"{words}: {percent(share)}")

    def _node(self, picture: Picture, side: int, name: str, node: _Node) -> None:
        share = percent(self._sums[side][name])
        x, label, anchor = (LEFT, LEFT - 10, "end") if side == 0 else (RIGHT, RIGHT + NODE + 10, "start")
        picture.rectangle(x, node.top, NODE, node.height, self._colour(name), tip=f"{name}: {share}", radius=1)
        middle = node.top + node.height / 2
        picture.text(label, middle - 2, shortened(name, LABEL_WIDTH), "ink", anchor=anchor)
        picture.text(label, middle + 13, share, "soft small", anchor=anchor)

    def _colour(self, name: str) -> str:
        if name == REST:
            return f"c{REST_COLOUR}"
        if name.startswith("("):
            return f"c{UNSERVED_COLOUR}"
        return f"c{TARGET_COLOURS[self._order.index(name) % len(TARGET_COLOURS)]}"


def headline(shares: ObjectiveShares) -> str:
    """Return one line: the share that moves in an objective, its error, and how contexts are weighted."""
    words = f"{percent(shares.moved)} of the traffic moves"
    if shares.retuned:
        words += f", {percent(shares.retuned)} keeps its target with other settings"
    over = "every case of a context counts alike"
    if shares.contexts is not None:
        over = f"over {shares.contexts:,} context{'s' * (shares.contexts != 1)} of the log"
    estimate = shares.changing
    how = "exact" if not estimate.drawn else f"estimated, ± {percent(estimate.bound)} with 95 % confidence"
    return f"{words} ({how}; {over})"


def _bands(shares: ObjectiveShares) -> Bands:
    bands: dict[tuple[str, str, bool], float] = {}
    for flow in shares.flows:
        key = (flow.old_target, flow.new_target, flow.moved or flow.retuned)
        bands[key] = bands.get(key, 0.0) + flow.share
    return bands


def _few(bands: Bands) -> Bands:
    """Return the bands; if there are too many targets, the smallest are merged."""
    sums = _sums(bands, 0), _sums(bands, 1)
    largest = {name: max(each.get(name, 0.0) for each in sums) for name in [*sums[0], *sums[1]]}
    if len(largest) <= MOST_TARGETS:
        return bands
    kept = set(sorted(largest, key=lambda name: (-largest[name], name))[: MOST_TARGETS - 1])
    few: dict[tuple[str, str, bool], float] = {}
    for (old, new, changes), share in bands.items():
        key = (old if old in kept else REST, new if new in kept else REST, changes)
        few[key] = few.get(key, 0.0) + share
    return few


def _sums(bands: Bands, side: Literal[0, 1]) -> dict[str, float]:
    """Return the shares of the old (0) or new (1) targets."""
    sums: dict[str, float] = {}
    for band, share in bands.items():
        sums[band[side]] = sums.get(band[side], 0.0) + share
    return sums


def _description(shown: Sequence[ObjectiveShares]) -> str:
    if not shown:
        return "Nothing moves between the two revisions."
    parts = [f"{each.objective}: {headline(each)}." for each in shown]
    return "From left to right, the targets of the old and of the new revision. " + " ".join(parts)
