"""The splits and experiments of a revision, by which a replay counts members, each of them once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from struct import Struct
from typing import Any

from tidegate.analysis.compare.revision import Revision, Side
from tidegate.rules.bundle.rule import Rule
from tidegate.rules.sticky import key_text, key_value

FILTER_BYTES = 1 << 25
"""32 MiB; memory that no key has touched yet is not used."""

_PLACES = FILTER_BYTES - 1
_three_numbers = Struct("<3I").unpack_from


class RaceKind(StrEnum):
    SPLIT = "split"
    LAYER = "layer"
    """An experiment that a layer allocates."""
    CALLER = "caller"
    """An experiment that callers allocate."""


@dataclass(frozen=True, slots=True)
class Race:
    """A split or an experiment of one rule.

    `weights` are by variant, in the order of the rule. `sources` are (attribute, default) of which the first that has a key (see `key_value`) is the member's: none
    if the caller allocates and the objective has no sticky key. `prefix` distinguishes its members from another's.
    """

    objective: str
    rule: str
    kind: RaceKind
    experiment: str | None
    weights: Mapping[str, int]
    sources: tuple[tuple[str, Any], ...]
    prefix: bytes

    @property
    def words(self) -> str:
        if self.kind is RaceKind.SPLIT:
            return "split"
        return f"experiment {self.experiment}" + (", allocated by the caller" if self.kind is RaceKind.CALLER else "")

    def key(self, context: Mapping[str, Any]) -> bytes | None:
        """Return the bytes of the key of a decided context; None if it has none."""
        for name, default in self.sources:
            value = key_value(context.get(name), default)
            if value is not None:
                # Where the caller allocates, the engine does not look at the key, so it may be broken text here.
                return (value if value.__class__ is str else key_text(value)).encode("utf-8", "surrogatepass")
        return None


def races_of(revision: Revision) -> dict[tuple[str, str], Race]:
    """Return every split and experiment by (objective, rule).

    Raises:
        BundleError: the revision's bundle is damaged.
    """
    sides = [revision.side(name) for name in revision.objectives]
    found = (_race(side, rule) for side in sides for rule in side.rules)
    return {(race.objective, race.rule): race for race in found if race is not None}


def _race(side: Side, rule: Rule) -> Race | None:
    objective, names = side.objective, side.objective.sticky_key
    experiment = rule.experiment
    if rule.split is not None:
        weights, kind = dict(rule.split), RaceKind.SPLIT
    elif experiment is not None:
        kind, weights = RaceKind(experiment.allocate), {}
        for each in experiment.cells:
            # Two cells of one text (1 and "1") make the same draws, so the heavier always wins.
            text = str(each.cell)
            weights[text] = max(each.weight, weights.get(text, 0))
        if experiment.layer is not None:
            names = side.layer_keys[experiment.layer]
    else:
        return None
    return Race(
        objective.name,
        rule.id,
        kind,
        experiment.id if experiment else None,
        weights,
        tuple((name, objective.attributes[name].default) for name in names),
        prefix_of(objective.name, rule.id),
    )


class Members:
    """Remembers which keys of which races have been counted, in constant memory.

    A member that comes back does not make a split's shares more certain, so shares are counted over distinct sticky keys. They
    are remembered in a Bloom filter (B. H. Bloom, "Space/Time Trade-offs in Hash Coding with Allowable Errors", CACM 13, 1970,
    https://doi.org/10.1145/362686.362692) that never forgets a key, and takes a new key for an old one where the others
    happen to have set its three bits. With `n` distinct keys, summed over all splits and experiments, the share of keys that
    go uncounted for this is the mean of (1 - exp(-3 x / 2^28))^3 over x from 0 to n: less than one key in a million up to a
    million keys, 0.03 % at 10 million, 10 % at 100 million. Which key goes uncounted depends on its hash here, which is
    independent of the hash of the sticky choice: what is counted stays a fair sample of all members, and a test of it valid.
    """

    __slots__ = ("_filter",)

    def __init__(self) -> None:
        self._filter = bytearray(FILTER_BYTES)

    def is_new(self, prefix: bytes, key: bytes) -> bool:
        """Remember a key of a prefix (see `prefix_of`), and return whether it is new."""
        one, two, three = _three_numbers(sha256(prefix + key).digest())
        # The same of the 8 bits in each of three bytes, as if there were 8 filters; the number's other bits are the place.
        bit = 1 << (one >> 29)
        one, two, three = one & _PLACES, two & _PLACES, three & _PLACES
        seen = self._filter
        if seen[one] & seen[two] & seen[three] & bit:
            return False
        seen[one] |= bit
        seen[two] |= bit
        seen[three] |= bit
        return True


def prefix_of(objective: str, rule: str) -> bytes:
    """Return the prefix of the keys of a rule; no sticky choice hashes a text with this prefix."""
    return f"\x1fmember\x1f{objective}/{rule}\x1f".encode()
