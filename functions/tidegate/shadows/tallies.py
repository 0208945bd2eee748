"""Differences of many shadows, for each pair of targets.

Tallies are made where shadows are compared, and merged where they are read. Their JSON has a number of its format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from tidegate.errors import StoreError
from tidegate.rules.bundle.json_values import NUMBER, TEXT, UNFIT, Kind, Record, array, encode, table
from tidegate.shadows.exchange import Exchange, Pair, exchanges_of
from tidegate.shadows.pair_tally import OutputTally, PairTally
from tidegate.shadows.sketch import COUNT, GRID, SKETCH
from tidegate.strict_json import UnreadableError, parse

FORMAT = 2
MOST_PAIRS = 256


class Tallies:
    """The tallies of up to `MOST_PAIRS` pairs; `left_out` counts the shadows of others."""

    def __init__(self) -> None:
        self.pairs: dict[Pair, PairTally] = {}
        self.left_out = 0

    def add(self, exchange: Exchange) -> None:
        """Compare the answers of a shadow, and count what differs. Raises nothing, whatever the answers hold."""
        if (tally := self._pair(exchange.pair, exchange.revision, exchange.at, 1)) is not None:
            tally.add(exchange)

    def add_uncompared(self, exchange: Exchange) -> None:
        """Count a shadow that was answered, and whose answer is not compared."""
        if (tally := self._pair(exchange.pair, exchange.revision, exchange.at, 1)) is not None:
            tally.add_uncompared(exchange)

    def count(self, records: Any) -> None:
        """Add what a gateway counted: what `PairCounts.take` returned.

        Raises:
            StoreError: it is something else.
        """
        made = Tallies()
        try:
            for pair, revision, first_at, last_at, counts in records:
                key = Pair(*_PAIR.read(pair))
                tally = PairTally(key, TEXT.read(revision), NUMBER.read(first_at), NUMBER.read(last_at))
                for name, count in counts.items():
                    tally.count(name, COUNT.read(count))
                made._merge_pair(tally)
        except (*UNFIT, ValueError) as error:
            raise StoreError(f"counts of shadows are damaged: {error}") from error
        self.merge(made)

    def merge(self, other: Tallies) -> None:
        self.left_out += other.left_out
        for each in other.pairs.values():
            self._merge_pair(each)

    def _merge_pair(self, other: PairTally) -> None:
        if (tally := self._pair(other.pair, other.revision, other.last_at, other.carried_out)) is not None:
            tally.merge(other)

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
