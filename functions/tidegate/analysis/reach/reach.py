"""Decides which rules of an objective can be reached, and whether every context is served."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from tidegate.analysis.reach.axis import TooManyClassesError
from tidegate.analysis.reach.keys import Region
from tidegate.analysis.reach.search import UNDECIDED, Outcome, search
from tidegate.analysis.reach.space import Space
from tidegate.analysis.space.bits import between, members

FIRST_STEPS = 200
"""Steps of every question at first; those left undecided then share the rest of the budget equally."""

COVER_STEPS = 5_000
"""Most steps to make one cover minimal."""

COVER_PARTS = 200
"""A cover is made minimal where what it covers is split at keys into so many parts at the most."""

COVERS = 200
"""Most covers that are made minimal, since people hardly read more."""

COVER_BOXES = 256
"""A cover of more boxes is reported as it was found."""


class Reach(Enum):
    REACHED = "reached"
    COVERED = "covered"
    CONTRADICTORY = "contradictory"
    OVER = "over"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class RuleReach:
    """The answer for one rule.

    Where it is covered (or reachable only at times that are over, and covered since), `covered_by` are the positions of
    rules that cover it together, ascending. `minimal`: none of them can be left out.
    """

    reach: Reach
    covered_by: tuple[int, ...] = ()
    minimal: bool = True


class Reachability:
    """The answers for one objective: for every rule in order (`rules`), and a hole that no rule covers at times that are not
    over (`hole`). `steps` is how many steps they took."""

    def __init__(self, space: Space, steps: int) -> None:
        """Decide in at most `budget` steps."""
        self._space, self._steps = space, steps
        self._unreached = 0
        """Boxes that no context reaches at times that are not over: boxes above them contain all of them."""
        self._never = 0
        """Boxes that no context ever reaches."""
        self._used: dict[int, int] = {}
        """By rule, boxes that together contain all of its own."""
        self._covers = COVERS
        self.steps = 0
        found = [self._decide(rule, self._share(1, FIRST_STEPS)) for rule in range(len(space.boxes_of))]
        self.hole = self._left_of_everything(self._share(1, FIRST_STEPS))
        undecided = [rule for rule, reach in enumerate(found) if reach is Reach.UNDECIDED]
        if not self.hole.decided:
            self.hole = self._left_of_everything(self._share(len(undecided) + 1))
        for left, rule in zip(range(len(undecided), 0, -1), undecided, strict=True):
            found[rule] = self._decide(rule, self._share(left))
        self.rules = [self._explained(rule, reach) for rule, reach in enumerate(found)]

    def is_reached_without_key(self, attributes: Sequence[str], rule: int) -> bool:
        """Return whether a context in which some attributes are no key reaches a rule at a time that is not over.

        False where undecided."""
        boxes = range(*self._space.boxes_of[rule])
        regions = (
            region
            for box in boxes
            if not self._unreached >> box & 1
            and (region := self._space.region(self._space.boxes[box].conditions, without_key=attributes)) is not None
        )
        return self._left_of(regions, self._above(rule, self._unreached), FIRST_STEPS).hole is not None

    def _share(self, questions: int, most: int | None = None) -> int:
        """Return the steps that each of some questions may take, at least one."""
        share = max((self._steps - self.steps) // questions, 1)
        return share if most is None else min(share, most)

    def _decide(self, rule: int, steps: int) -> Reach:
        now = self._unreached_boxes(rule, steps, with_past=False)
        if now.hole is not None:
            return Reach.REACHED
        if not now.decided:
            return Reach.UNDECIDED
        self._unreached |= between(*self._space.boxes_of[rule])
        self._used[rule] = now.used
        ever = (
            self._unreached_boxes(rule, steps, with_past=True)
            if self._space.times is not None and self._space.times.past
            else now
        )
        if ever.hole is not None:
            return Reach.OVER
        if ever.decided:
            self._never |= between(*self._space.boxes_of[rule])
            self._used[rule] = ever.used
            if not any(True for _ in self._regions(rule, with_past=True)):
                return Reach.CONTRADICTORY
        return Reach.COVERED

    def _unreached_boxes(self, rule: int, steps: int, *, with_past: bool) -> Outcome:
        above = self._above(rule, self._never if with_past else self._unreached)
        return self._left_of(self._regions(rule, with_past=with_past), above, steps)

    def _left_of_everything(self, steps: int) -> Outcome:
        try:
            everything = self._space.region({})
        except TooManyClassesError:
            return UNDECIDED
        boxes = between(0, len(self._space.boxes)) & ~self._unreached
        return self._left_of([] if everything is None else [everything], boxes, steps, every_key=True)

    def _regions(self, rule: int, *, with_past: bool) -> Iterable[Region]:
        for box in range(*self._space.boxes_of[rule]):
            region = self._space.region(self._space.boxes[box].conditions, with_past=with_past)
            if region is not None:
                yield region

    def _above(self, rule: int, without: int) -> int:
        return between(0, self._space.boxes_of[rule][0]) & ~without

    def _left_of(self, regions: Iterable[Region], boxes: int, steps: int, *, every_key: bool = False) -> Outcome:
        """Return what boxes leave of regions: a hole in the first that has one, or all boxes that hold them together.

        With `every_key`, a hole decides of every key whether it is present."""
        used, left, decided = 0, steps, True
        try:
            for region in regions:
                parts = [region]
                while parts:
                    if left < 1:
                        return Outcome(None, used, decided=False)
                    part = parts.pop()
                    outcome, taken = search(self._space.axes, part.spans, boxes, left)
                    left -= taken
                    self.steps += taken
                    if outcome.hole is None:
                        used |= outcome.used
                        decided = decided and outcome.decided
                        continue
                    found = self._space.keys.settled(part, outcome.hole, every=every_key)
                    if not isinstance(found, int):
                        return Outcome(found)
                    parts += self._space.keys.split(part, found)
        except TooManyClassesError:
            decided = False
        return Outcome(None, used, decided)

    def _explained(self, rule: int, reach: Reach) -> RuleReach:
        if reach is not Reach.COVERED and reach is not Reach.OVER:
            return RuleReach(reach)
        with_past = reach is Reach.COVERED and bool(self._never >> self._space.boxes_of[rule][0] & 1)
        regions = list(self._regions(rule, with_past=with_past))
        above = self._above(rule, self._never if with_past else self._unreached)
        used = self._used[rule]
        if used & ~above:
            # One of them was found to be covered itself since.
            used = self._left_of(regions, above, self._steps).used
        parts = self._split(regions, used)
        alone = self._holding_alone(parts or regions, above)
        if alone is not None:
            return RuleReach(reach, (alone,))
        self._covers -= 1
        steps = COVER_STEPS if self._covers >= 0 and parts is not None else 0
        return RuleReach(reach, *self._minimal_cover(parts or regions, used, above, steps))

    def _minimal_cover(
        self, regions: Sequence[Region], used: int, above: int, steps: int
    ) -> tuple[tuple[int, ...], bool]:
        """Return rules that cover regions, ascending, and whether none of them can be left out (unknown, and so False, where
        the steps ran out).

        `used` are boxes that hold the regions together, `above` those that may: a rule may hold more by its other boxes.
        """
        rules = sorted(self._rules_of(used))
        if len(rules) == 1:
            return tuple(rules), True
        of_rule = {rule: between(*self._space.boxes_of[rule]) & above for rule in rules}
        if sum(boxes.bit_count() for boxes in of_rule.values()) > COVER_BOXES or steps < 1:
            return tuple(rules), False
        kept = list(rules)
        for rule in reversed(rules):
            if rule not in kept:
                continue
            trial, needed = sum(of_rule[other] for other in kept if other != rule), 0
            for region in regions:
                outcome, taken = search(self._space.axes, region.spans, trial, max(steps, 1))
                steps -= taken
                if outcome.hole is not None:
                    break
                if not outcome.decided:
                    return tuple(kept), False
                needed |= outcome.used
            else:
                kept = [other for other in kept if of_rule[other] & needed]
        return tuple(kept), True

    def _split(self, regions: Sequence[Region], used: int) -> list[Region] | None:
        """Return regions split at the keys of all layers that they, or rules of boxes, look at; None: too many."""
        layers: dict[int, None] = {}
        for rule in self._rules_of(used):
            for box in range(*self._space.boxes_of[rule]):
                layers.update((axis, None) for axis in self._space.boxes[box].conditions if axis in self._space.layers)
        found: list[Region] = []
        for region in regions:
            mine = [axis for axis in region.conditions if axis in self._space.layers]
            parts = self._space.keys.split_at_all(region, [*mine, *layers], COVER_PARTS)
            if parts is None or len(found) + len(parts) > COVER_PARTS + len(regions):
                return None
            found += parts
        return found

    def _holding_alone(self, regions: Sequence[Region], above: int) -> int | None:
        """Return the first rule of which single boxes hold each of some regions, or None."""
        common: set[int] | None = None
        for region in regions:
            holding = above
            for span in region.spans:
                holding &= span.containing
            rules = self._rules_of(holding)
            common = rules if common is None else common & rules
            if not common:
                return None
        return min(common) if common else None

    def _rules_of(self, boxes: int) -> set[int]:
        return {self._space.boxes[box].rule for box in members(boxes)}
