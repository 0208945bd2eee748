"""Differences of many shadows: for each pair of targets counts, and the distributions of errors, in bounded space.

Tallies are made where shadows are compared, and merged where they are read. Their JSON has a number of its format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from tidegate.errors import StoreError
from tidegate.rules.bundle.json_values import NUMBER, TEXT, UNFIT, Kind, Record, array, encode, table
from tidegate.rules.contract import Ranking
from tidegate.shadows.comparison import OutputComparison, compare_outputs, compare_rankings
from tidegate.shadows.exchange import Answer, Exchange, NoAnswer, Pair, exchanges_of
from tidegate.shadows.sketch import COUNT, GRID, SKETCH, Grid, Sketch
from tidegate.shadows.tensors import Tensor, UnreadableAnswerError, read_tensors
from tidegate.strict_json import UnreadableError, parse

FORMAT = 1
MOST_PAIRS = 256
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
        shadows: copies that reached the process or the function that sends them.
        dropped: those of them that it did not send.
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
    shadows: int = 0
    dropped: int = 0
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
        self.shadows += 1
        primary, shadow = exchange.primary, exchange.shadow
        if shadow is NoAnswer.DROPPED:
            self.dropped += 1
            return
        why = shadow if isinstance(shadow, NoAnswer) else _failure(shadow)
        if (primary_why := _failure(primary)) is not None:
            _add(self.primary_failed, primary_why)
            self.both_failed += why is not None
        elif why is not None:
            _add(self.shadow_failed, why)
        elif isinstance(shadow, Answer):
            self._add_answers(primary, shadow, exchange.ranking)

    def _extend(self, revision: str, first_at: float, last_at: float) -> None:
        self.last_at, self.revision = max((self.last_at, self.revision), (last_at, revision))
        self.first_at = min(self.first_at, first_at)

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


class Tallies:
    """The tallies of up to `MOST_PAIRS` pairs; `left_out` counts the shadows of others."""

    def __init__(self) -> None:
        self.pairs: dict[Pair, PairTally] = {}
        self.left_out = 0

    def add(self, exchange: Exchange) -> None:
        """Compare the answers of a shadow, and count what differs. Raises nothing, whatever the answers hold."""
        if (tally := self._pair(exchange.pair, exchange.revision, exchange.at, 1)) is not None:
            tally.add(exchange)

    def merge(self, other: Tallies) -> None:
        self.left_out += other.left_out
        for each in other.pairs.values():
            if (tally := self._pair(each.pair, each.revision, each.last_at, each.shadows)) is not None:
                tally.merge(each)

    def _pair(self, pair: Pair, revision: str, at: float, shadows: int) -> PairTally | None:
        """Return the tally of a pair; None where there is no room for another, and these shadows are left out."""
        tally = self.pairs.get(pair)
        if tally is None and len(self.pairs) == MOST_PAIRS:
            self.left_out += shadows
        elif tally is None:
            tally = self.pairs[pair] = PairTally(pair, revision, at, at)
        return tally

    def to_json(self) -> bytes:
        """Return the tallies in their stored form."""
        return encode({"format": FORMAT, "pairs": _PAIRS.write(self.pairs.values()), "left_out": self.left_out})

    @classmethod
    def from_json(cls, data: bytes) -> Tallies:
        """Read what `to_json` wrote.

        Raises:
            StoreError: it is something else, or of another format.
        """
        try:
            document = parse(data)
            if not isinstance(document, dict) or document.get("format") != FORMAT:
                raise StoreError(f"tallies of shadows are not of format {FORMAT}, which this version of Tidegate reads")
            made = cls()
            made.pairs = {each.pair: each for each in _PAIRS.read(document["pairs"])}
            made.left_out = COUNT.read(document["left_out"])
        except (UnreadableError, *UNFIT) as error:
            raise StoreError(f"tallies of shadows are damaged: {error}") from error
        if made.to_json() != encode(document):
            raise StoreError("tallies of shadows have members, or values, that this version of Tidegate does not write")
        return made


def compare_parts(*parts: bytes) -> bytes:
    """Return the tallies, in their stored form, of exchanges that `worker_parts` wrote."""
    tallies = Tallies()
    for exchange in exchanges_of(parts):
        tallies.add(exchange)
    return tallies.to_json()


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


_KINDS: Mapping[str, Kind] = {
    "int": COUNT,
    "float": NUMBER,
    "str": TEXT,
    "Counts": table(COUNT),
    "Sketch": SKETCH,
    "Grid": GRID,
}


def _record(made: type, **others: Any) -> Record[Any]:
    kinds: Any = {each.name: others.get(each.name) or _KINDS[str(each.type)] for each in fields(made)}
    return Record(made, **kinds)


_PAIR = array(TEXT)
_PAIRS = array(
    _record(
        PairTally,
        pair=Kind(lambda value: Pair(*_PAIR.read(value)), list),
        outputs=table(_record(OutputTally)),
    )
)
