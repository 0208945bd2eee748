"""The graph of the rules as SVG: four columns from objectives to shards, shares as the widths of bands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tidegate.analysis.figures import plain
from tidegate.analysis.pictures.graph import Graph, ObjectiveNode, RuleNode
from tidegate.analysis.pictures.svg import BOLD, PALETTE, Picture, band_path, shortened, swing

MARGIN = 24.0
HEADER = 56.0
FOOTER = 44.0
GAP = 10.0
OBJECTIVE_GAP = 26.0
NODE = 40.0
LANE = 17.0
"""The height that each labelled band of a rule needs."""

COLUMNS = {"objective": (24.0, 190.0), "rule": (264.0, 360.0), "target": (754.0, 270.0), "shard": (1114.0, 120.0)}
"""The left edge and the width of each column."""

WIDTH = 1258.0
MOST_LABEL = 130.0
"""The width that the words of a rule's bands have at the most, inside its box."""

_THICKEST = 9.0
_THINNEST = 1.2


@dataclass(frozen=True, slots=True)
class _Band:
    y: float
    target: str
    thickness: float
    label: str
    colour: int
    tip: str


def graph_svg(graph: Graph) -> str:
    left = _LeftSide(graph)
    wanted: dict[str, list[float]] = {target.name: [] for target in graph.targets}
    for band in left.bands:
        wanted[band.target].append(band.y)
    for y, name in left.grey:
        wanted[name] = wanted[name] or [y]
    targets = _column({name: sum(ys) / len(ys) for name, ys in wanted.items()}, left.bottom)
    by_shard: dict[str, list[float]] = {shard: [] for shard in graph.shards}
    for target in graph.targets:
        for shard in target.shards:
            by_shard[shard].append(targets[target.name])
    shards = _column({name: sum(ys) / len(ys) for name, ys in by_shard.items()}, left.bottom)
    height = max([left.bottom, *(y + NODE / 2 for y in (*targets.values(), *shards.values()))]) + FOOTER
    names = ", ".join(objective.name for objective in graph.objectives)
    named = names if len(graph.objectives) <= 3 else f"{len(graph.objectives)} objectives"
    picture = Picture(WIDTH, height, f"Rules of {named}", _description(graph))
    for name, (x, _) in COLUMNS.items():
        picture.text(x, MARGIN + 8, f"{name}s", "soft bold")
    for y, name in left.grey:
        _thin(picture, _right("rule"), y, COLUMNS["target"][0], targets[name], "a fallback")
    for target in graph.targets:
        for place, shard in enumerate(target.shards):
            ends = (_right("target"), targets[target.name], COLUMNS["shard"][0], shards[shard])
            if place:
                _thin(picture, *ends, f"{target.name}: failover to {shard}")
            else:
                _band(picture, *ends, 2.5, 6, f"{target.name} is on {shard}")
    left.draw(picture, targets)
    for target in graph.targets:
        resolved = f"→ {target.resolved}" if target.resolved else ""
        _card(picture, "target", targets[target.name], NODE, target.name, resolved)
    for shard, replicas in graph.shards.items():
        _card(picture, "shard", shards[shard], NODE, shard, f"{replicas} replica" + ("" if replicas == 1 else "s"))
    legend = "Bands: who serves, as wide as its share; shadows are thin. Grey lines: where a failing request goes next."
    picture.text(MARGIN, height - 16, legend, "soft small")
    return picture.render()


class _LeftSide:
    """Objectives and rules with their places, the bands and the grey lines that leave rules, and how far down they reach."""

    def __init__(self, graph: Graph) -> None:
        self.bands: list[_Band] = []
        self.grey: list[tuple[float, str]] = []
        self._rules: list[tuple[RuleNode, float, float]] = []
        self._objectives: list[tuple[ObjectiveNode, list[float], int]] = []
        top = HEADER
        for number, objective in enumerate(graph.objectives):
            colour, middles = number % (PALETTE - 2), []
            for rule in objective.rules:
                lanes = len(rule.serves) + len(rule.shadows)
                height = max(NODE, lanes * LANE + 6)
                self._rules.append((rule, top + height / 2, height))
                self.bands += _bands(rule, top + (height - lanes * LANE) / 2, colour)
                self.grey += [(top + height - 4, name) for name in rule.fallbacks]
                middles.append(top + height / 2)
                top += height + GAP
            self._objectives.append((objective, middles, colour))
            top += OBJECTIVE_GAP
        self.bottom = top - OBJECTIVE_GAP

    def draw(self, picture: Picture, targets: Mapping[str, float]) -> None:
        """Draw the left side, with bands to targets whose middles are given."""
        for objective, middles, colour in self._objectives:
            for y in middles:
                ends = (_right("objective"), (middles[0] + middles[-1]) / 2, COLUMNS["rule"][0], y)
                _band(picture, *ends, 1.5, colour, f"{objective.name}: tried from the top")
        for band in self.bands:
            ends = (_right("rule"), band.y, COLUMNS["target"][0], targets[band.target])
            _band(picture, *ends, band.thickness, band.colour, band.tip)
        for rule, y, height in self._rules:
            labels = [each.label for each in rule.serves] + ["shadow 00 %" for _ in rule.shadows]
            room = 6.5 * max(len(label) for label in labels)
            _card(picture, "rule", y, height, rule.label, rule.detail, min(room, MOST_LABEL))
        for band in self.bands:
            label = shortened(band.label, MOST_LABEL * 1.1)
            picture.text(_right("rule") - 8, band.y + 4, label, "ink small", anchor="end")
        for objective, middles, colour in self._objectives:
            middle = (middles[0] + middles[-1]) / 2
            _card(picture, "objective", middle, NODE, objective.name, objective.owner)
            picture.rectangle(COLUMNS["objective"][0], middle - NODE / 2, 5, NODE, f"c{colour}", radius=2)


def _bands(rule: RuleNode, top: float, colour: int) -> list[_Band]:
    made = []
    for lane, served in enumerate(rule.serves):
        share = served.share if served.share is not None else 1 / len(rule.serves)
        thickness = max(_THINNEST, _THICKEST * share)
        tip = f"{rule.label}: {served.label or 'serves'} → {served.target}"
        made.append(_Band(top + (lane + 0.5) * LANE, served.target, thickness, served.label, colour, tip))
    for lane, (name, percent) in enumerate(rule.shadows, len(rule.serves)):
        label = f"shadow {plain(percent)} %"
        made.append(_Band(top + (lane + 0.5) * LANE, name, _THINNEST, label, colour, f"{rule.label}: {label} → {name}"))
    return made


def _column(wanted: Mapping[str, float], bottom: float) -> dict[str, float]:
    """Return the middles of a column's nodes, as near to where they are wanted as their heights allow.

    `bottom` is the lowest edge where there is room."""
    order = sorted(wanted, key=lambda name: wanted[name])
    step = NODE + GAP
    placed: dict[str, float] = {}
    below = HEADER - GAP - NODE / 2
    for name in order:
        below = max(wanted[name], below + step)
        placed[name] = below
    highest = max(bottom - GAP - NODE / 2, HEADER + NODE / 2 + step * (len(order) - 1))
    for name in reversed(order):
        placed[name] = min(placed[name], highest)
        highest = placed[name] - step
    return placed


def _card(
    picture: Picture, column: str, middle: float, height: float, label: str, detail: str, taken: float = 0
) -> None:
    """Draw a node; `taken` is the width that is in use at its right edge."""
    x, width = COLUMNS[column]
    tip = f"{label}: {detail}" if detail else label
    picture.rectangle(x, middle - height / 2, width, height, "card", tip=tip, radius=6)
    room = width - 24 - taken
    picture.text(x + 12, middle - 2 if detail else middle + 4, shortened(label, room * BOLD), "ink bold")
    if detail:
        picture.text(x + 12, middle + 14, shortened(detail, room * 1.1), "soft small")


def _band(
    picture: Picture, x1: float, y1: float, x2: float, y2: float, thickness: float, colour: int, tip: str
) -> None:
    picture.path(band_path(x1, y1, x2, y2, thickness), f"flow c{colour}", tip=tip)


def _thin(picture: Picture, x1: float, y1: float, x2: float, y2: float, tip: str) -> None:
    """A line without an area: there and back along one curve, so that its stroke alone is seen."""
    picture.path(f"M{x1:.1f} {y1:.1f}{swing(x1, y1, x2, y2)}{swing(x2, y2, x1, y1)}Z", "grid", tip=tip)


def _right(column: str) -> float:
    x, width = COLUMNS[column]
    return x + width


def _description(graph: Graph) -> str:
    rules = sum(len(objective.rules) for objective in graph.objectives)
    counts = (
        f"{len(graph.objectives)} objectives, {rules} rules, {len(graph.targets)} targets, {len(graph.shards)} shards"
    )
    return f"From left to right: {counts}. Each rule leads to the targets that it serves, each target to its shards."
