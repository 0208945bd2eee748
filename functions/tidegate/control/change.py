"""A change of what is live: the input of an activation, and its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tidegate.control.plans import NOTHING, Plan
from tidegate.ports import FlipAction, LiveEntry, Pointer, Unit
from tidegate.rules import Target
from tidegate.rules.bundle import revision_json, rules_of

SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A revision that is to become live, whose bundle and assignment are stored.

    Attributes:
        plans: what each shard must hold.
        targets: the targets that must be READY, each on all its shards.
        known: the names of the targets that the live revision serves identically, so that golden requests prove nothing new.
        requires_samples: whether every other target must answer a golden request.
        pins: the drafts that it needs: see `ModelStore`.
        marks_bad, clears, follows: become the entry's: see `LiveEntry`.
        retries: whether models are tried again that failed a try of this process shortly before.
    """

    action: FlipAction
    revision: str
    base: Pointer | None
    plans: Mapping[str, Plan]
    targets: Sequence[Target]
    by: str
    why: str = ""
    known: frozenset[str] = frozenset()
    requires_samples: bool = False
    pins: Mapping[Unit, str] = field(default_factory=dict)
    marks_bad: bool = False
    clears: bool = False
    follows: str | None = None
    retries: bool = True

    @property
    def is_urgent(self) -> bool:
        """Whether it goes ahead without servers that are missing for the live revision as well; only a publish waits for them."""
        return self.action is not FlipAction.PUBLISH

    @property
    def shards(self) -> list[str]:
        return [shard for shard, plan in self.plans.items() if plan]

    def plan(self, shard: str) -> Plan:
        return self.plans.get(shard, NOTHING)

    def entry(self, at: float) -> LiveEntry:
        base = self.base
        return LiveEntry(
            self.revision,
            1 if base is None else base.live.sequence + 1,
            self.by,
            at,
            self.why,
            self.action,
            marked_bad=base.live.revision if base is not None and self.marks_bad else None,
            cleared=self.clears,
            follows=self.follows,
        )


@dataclass(frozen=True, slots=True)
class AbsentShard:
    """A shard that a revision went live without, as none of its servers was ready.

    Attributes:
        targets: the targets that it does not serve until its servers come.
        rules: the rules (`objective/rule`) that have nothing else to serve them.
    """

    shard: str
    targets: tuple[str, ...]
    rules: tuple[str, ...]

    def __str__(self) -> str:
        unserved = f"; until then nothing serves {some_names(self.rules)}" if self.rules else ""
        return (
            f"shard {self.shard!r} has no server that is ready; {some_names(self.targets)} are loaded there once one comes"
            f"{unserved}; see `tidegate status`"
        )


@dataclass(frozen=True, slots=True)
class Activated:
    """Result of an activation.

    Attributes:
        unconfirmed: those that did not report it in time.
        warnings: work that is left to the next reconcile.
        unproved: the targets that no golden request proved, with the reason.
        pauses: whether it ended the following of a directory.
    """

    entry: LiveEntry
    pauses: bool = False
    loaded: Mapping[str, int] = field(default_factory=dict)
    confirmed: tuple[str, ...] = ()
    unconfirmed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    unproved: Mapping[str, str] = field(default_factory=dict)
    absent: tuple[AbsentShard, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {
            **revision_json(self.entry.revision),
            "sequence": self.entry.sequence,
            "by": self.entry.by,
            "at": self.entry.at,
            "why": self.entry.why,
            "action": self.entry.action,
            "marked_bad": self.entry.marked_bad and rules_of(self.entry.marked_bad),
            "cleared": self.entry.cleared,
            "follows": self.entry.follows,
            **{name: value for name, value in asdict(self).items() if name != "entry"},
        }


def some_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more
