"""What the shadows of one pair of targets had: counts, and the distributions of errors, in bounded space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from tidegate.rules.contract import Ranking
from tidegate.shadows.comparison import OutputComparison, compare_outputs, compare_rankings
from tidegate.shadows.counts import Drop, LeftOut
from tidegate.shadows.exchange import Answer, Exchange, NoAnswer, Pair
from tidegate.shadows.sketch import Grid, Sketch
from tidegate.shadows.tensors import Tensor, UnreadableAnswerError, read_tensors

MOST_OUTPUTS = 32
_OK = 200

Counts = dict[str, int]
Tensors = Mapping[str, Tensor]


@dataclass(slots=True)
class OutputTally:
    """One output in the answers of a pair.

    Attributes:
        answers: how many pairs of answers have it, in one of them or both.
        only_primary: answers in which the shadow lacks it.
        only_shadow: answers in which the primary lacks it.
        datatypes: how often it had which two datatypes, where they differ: `FP32 and FP16`, the primary's first.
        shapes: answers in which its shapes differ.
        compared: answers in which its elements were compared.
        identical: of these, those with the same datatype and elements.
        elements: how many were compared, in all answers together.
        equal: how many of them were equal.
        absolute: the largest absolute error of each answer, of floating-point numbers.
        relative: the largest relative error of each answer.
    """

    answers: int = 0
    only_primary: int = 0
    only_shadow: int = 0
    datatypes: Counts = field(default_factory=dict)
    shapes: int = 0
    compared: int = 0
    identical: int = 0
    elements: int = 0
    equal: int = 0
    absolute: Sketch = field(default_factory=Sketch)
    relative: Sketch = field(default_factory=Sketch)

    def add(self, found: OutputComparison) -> None:
        self.answers += 1
        primary, shadow = found.datatypes
        if primary is None or shadow is None:
            self.only_primary += shadow is None
            self.only_shadow += primary is None
            return
        if primary != shadow:
            _add(self.datatypes, f"{primary} and {shadow}")
        self.shapes += not found.shapes_match
        self.compared += found.is_compared
        self.identical += found.is_identical
        self.elements += found.elements
        self.equal += found.equal
        if found.errors is not None:
            self.absolute.add(found.errors[0])
            self.relative.add(found.errors[1])


@dataclass(slots=True)
class PairTally:
    """The shadows of one pair.

    Attributes:
        revision: that of the last of them.
        first_at: when the first was, in Unix seconds.
        last_at: when the last was.
        sampled: requests that the shadow sampled.
        left_out: those of them that are never copied, by the reason.
        dropped: those whose copy was not sent, by the reason.
        sent: those whose copy was sent, whatever became of it.
        not_compared: copies that were answered, for whose answers there was no time or memory.
        primary_failed: those whose primary has no readable answer of status 200, by the reason.
        both_failed: of these, those in which the shadow has no answer of status 200 either.
        shadow_failed: the others in which the shadow has no readable answer of status 200, by the reason.
        compared: those of which both answers were compared.
        identical: of these, those in which every output is there twice, with the same datatype, shape and elements.
        outputs: what differs in each output, by name.
        outputs_left_out: outputs of answers that are not in `outputs`, as that is full.
        primary_ms: latencies of the primary, where both have status 200.
        shadow_ms: latencies of the shadow.
        ratio: the shadow's latency divided by the primary's.
        overlap: the part of the ranked items that both have.
        tau: Kendall's tau of the items that both have.
        unranked: compared answers that are not two rankings, although the objective says that they are.
    """

    pair: Pair
    revision: str
    first_at: float
    last_at: float
    sampled: int = 0
    left_out: Counts = field(default_factory=dict)
    dropped: Counts = field(default_factory=dict)
    sent: int = 0
    not_compared: int = 0
    primary_failed: Counts = field(default_factory=dict)
    both_failed: int = 0
    shadow_failed: Counts = field(default_factory=dict)
    compared: int = 0
    identical: int = 0
    outputs: dict[str, OutputTally] = field(default_factory=dict)
    outputs_left_out: int = 0
    primary_ms: Sketch = field(default_factory=Sketch)
    shadow_ms: Sketch = field(default_factory=Sketch)
    ratio: Sketch = field(default_factory=Sketch)
    overlap: Grid = field(default_factory=Grid)
    tau: Grid = field(default_factory=Grid)
    unranked: int = 0

    def add(self, exchange: Exchange) -> None:
        self._extend(exchange.revision, exchange.at, exchange.at)
        primary, shadow = exchange.primary, exchange.shadow
        if isinstance(shadow, Drop):
            _add(self.dropped, shadow)
            return
        self.sent += 1
        why = shadow if isinstance(shadow, NoAnswer) else _failure(shadow)
        if (primary_why := _failure(primary)) is not None:
            _add(self.primary_failed, primary_why)
            self.both_failed += why is not None
        elif why is not None:
            _add(self.shadow_failed, why)
        elif isinstance(shadow, Answer):
            self._add_answers(primary, shadow, exchange.ranking)

    def count(self, name: str, count: int) -> None:
        """Count what a gateway did. Raises `ValueError`: it does not count that."""
        kind, _, reason = name.partition(": ")
        match kind:
            case "sampled":
                self.sampled += count
            case "left out":
                _add(self.left_out, LeftOut(reason), count)
            case "dropped":
                _add(self.dropped, Drop(reason), count)
            case _:
                raise ValueError(name)

    def _extend(self, revision: str, first_at: float, last_at: float) -> None:
        self.last_at, self.revision = max((self.last_at, self.revision), (last_at, revision))
        self.first_at = min(self.first_at, first_at)

    @property
    def carried_out(self) -> int:
        """How many were sent or dropped."""
        return self.sent + sum(self.dropped.values())

    @property
    def missing(self) -> int:
        """How many sampled requests are not known to be left out, dropped or sent: their copies are under way, or lost."""
        return max(0, self.sampled - sum(self.left_out.values()) - self.carried_out)

    def add_uncompared(self, exchange: Exchange) -> None:
        self._extend(exchange.revision, exchange.at, exchange.at)
        self.sent += 1
        self.not_compared += 1

    def _add_answers(self, primary: Answer, shadow: Answer, ranking: Ranking | None) -> None:
        self.primary_ms.add(primary.latency_ms)
        self.shadow_ms.add(shadow.latency_ms)
        if primary.latency_ms > 0:
            self.ratio.add(shadow.latency_ms / primary.latency_ms)
        primary_outputs = _outputs(primary, self.primary_failed)
        shadow_outputs = None if primary_outputs is None else _outputs(shadow, self.shadow_failed)
        if primary_outputs is not None and shadow_outputs is not None:
            self._add_outputs(primary_outputs, shadow_outputs, ranking)

    def _add_outputs(self, primary: Tensors, shadow: Tensors, ranking: Ranking | None) -> None:
        compared = compare_outputs(primary, shadow)
        self.compared += 1
        self.identical += all(each.is_identical for each in compared.values())
        for name, each in compared.items():
            if (tally := self._output(name, 1)) is not None:
                tally.add(each)
        if ranking is None:
            return
        ranked = compare_rankings(ranking, primary, shadow)
        if ranked is None:
            self.unranked += 1
            return
        self.overlap.add(ranked.overlap)
        if ranked.tau is not None:
            self.tau.add(ranked.tau)

    def _output(self, name: str, answers: int) -> OutputTally | None:
        if name not in self.outputs and len(self.outputs) == MOST_OUTPUTS:
            self.outputs_left_out += answers
            return None
        return self.outputs.setdefault(name, OutputTally())

    def merge(self, other: PairTally) -> None:
        """Add what another tally of the same pair counted."""
        self._extend(other.revision, other.first_at, other.last_at)
        for name, output in other.outputs.items():
            if (own := self._output(name, output.answers)) is not None:
                _merge(own, output)
        _merge(self, other)


def _failure(answer: Answer) -> str | None:
    return None if answer.status == _OK else f"status {answer.status}"


def _outputs(answer: Answer, failed: Counts) -> Tensors | None:
    """Return the outputs of an answer; None, and its reason counted, if they cannot be read."""
    try:
        return read_tensors(answer)
    except UnreadableAnswerError as error:
        _add(failed, error.why)
        return None


def _add(counts: Counts, key: str, count: int = 1) -> None:
    counts[key] = counts.get(key, 0) + count


def _merge(own: Any, other: Any) -> None:
    """Add the counts and distributions of `other` to those of `own`, which is of the same class."""
    for each in fields(own):
        mine, theirs = getattr(own, each.name), getattr(other, each.name)
        match each.type:
            case "int":
                setattr(own, each.name, mine + theirs)
            case "Counts":
                for key, count in theirs.items():
                    _add(mine, key, count)
            case "Sketch" | "Grid":
                mine.merge(theirs)
