"""The live rules, opened once: their engine, and each rule with its line in the directory."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.analysis.compare.revision import Revision, open_revision
from tidegate.control.plane import ControlPlane
from tidegate.errors import BundleError, Refusal, RefusedError, StoreError, UnknownObjectiveError
from tidegate.ports import LiveEntry, Pointer
from tidegate.rules.bundle import begins_revision, short_revision
from tidegate.rules.bundle.rule import Rule
from tidegate.rules.nearest import nearest

KEPT = 4
"""Opened revisions that are kept; one of 10 000 rules takes some 20 MB."""

SHOWN = 5

POINTER_S = 2.0
"""The longest wait for the pointer where an earlier one is known."""


@dataclass(frozen=True, slots=True)
class OpenedRules:
    """A revision with what the console asks of it again and again.

    Attributes:
        windows: the objective, the id and the end (Unix seconds) of each rule that ends.
        moments: when a rule of each objective begins or ends.
    """

    revision: Revision
    windows: tuple[tuple[str, str, float], ...]
    moments: Mapping[str, tuple[float, ...]]

    @property
    def rules(self) -> Mapping[str, Sequence[Rule]]:
        return self.revision.rules

    def of(self, objective: str) -> Sequence[Rule]:
        """Return the rules of an objective, in order.

        Raises:
            UnknownObjectiveError: there is none of that name.
        """
        if objective not in self.rules:
            raise UnknownObjectiveError(objective, nearest(objective, self.rules))
        return self.rules[objective]

    def basis_of(self, objective: str) -> Any:
        """Return all that decides which rule and which target a context gets, to be compared; None: there is no such objective."""
        if objective not in self.rules:
            return None
        side = self.revision.side(objective)
        targets = {side.targets[name] for rule in side.rules for name in rule.targets()}
        models = {(each.name, each.model, each.version) for each in targets}
        return side.rules, side.objective.attributes, side.objective.sticky_key, side.layer_keys, models


class LiveRules:
    """Opens revisions of a control plane in threads, as a large one takes most of a second, and keeps the last few."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._opened: OrderedDict[str, asyncio.Task[OpenedRules]] = OrderedDict()

    async def pointer(self) -> Pointer:
        """Return the pointer; where the store does not answer in time, the last known one.

        Raises:
            StoreError: none is known.
        """
        known = self._plane.reader.known
        try:
            async with asyncio.timeout(None if known is None else POINTER_S):
                known = await self._plane.reader.pointer() or known
        except (StoreError, TimeoutError):
            if known is None:
                raise
        if known is None:
            raise StoreError(
                "nothing is live: nothing was ever published, or the pointer is lost; see `tidegate status`"
            )
        return known

    async def live(self) -> OpenedRules:
        """Open the live revision. Raises `StoreError` or `BundleError`: it cannot be read."""
        return await self.opened((await self.pointer()).live.revision)

    async def named(self, name: str) -> OpenedRules:
        """Open the revision that a person names: see `named`. Raises `RefusedError`, `StoreError` or `BundleError`."""
        return await self.opened(named(await self.pointer(), name).revision)

    async def opened(self, revision: str) -> OpenedRules:
        """Open a revision by its whole digest. Raises `StoreError` or `BundleError`: it cannot be read."""
        task = self._opened.get(revision)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._opened[revision] = asyncio.create_task(self._open(revision))
            while len(self._opened) > KEPT:
                self._opened.popitem(last=False)
        self._opened.move_to_end(revision)
        return await asyncio.shield(task)

    async def changed_at(self, pointer: Pointer, objective: str, after: float) -> float | None:
        """Return when the live rules of an objective became what they are, in Unix seconds; None: before `after`, or with the first
        flip. Where that is too long ago to be looked up, or cannot be, it is the earliest flip that is known to have them."""
        basis = (await self.opened(pointer.live.revision)).basis_of(objective)
        changed = pointer.live
        for entry in pointer.entries[1:KEPT]:
            if changed.at <= after:
                return None
            try:
                if (await self.opened(entry.revision)).basis_of(objective) != basis:
                    return changed.at
            except (StoreError, BundleError):
                return changed.at
            changed = entry
        return None if changed.at <= after or changed.sequence == 1 else changed.at

    async def _open(self, revision: str) -> OpenedRules:
        bundle = await self._plane.reader.bundle(revision)
        return await asyncio.to_thread(open_rules, bundle.data)


def open_rules(data: bytes) -> OpenedRules:
    """Open a bundle. Raises `BundleError`: it is none."""
    revision = open_revision(data)
    windows: list[tuple[str, str, float]] = []
    moments: dict[str, tuple[float, ...]] = {}
    for objective, rules in revision.rules.items():
        active = [(rule.id, *rule.active) for rule in rules if rule.active is not None]
        windows += [(objective, rule, end) for rule, _, end in active if end is not None]
        moments[objective] = tuple(moment for _, *both in active for moment in both if moment is not None)
    return OpenedRules(revision, tuple(windows), moments)


def named(pointer: Pointer, name: str) -> LiveEntry:
    """Return the flip that `live`, `live~N` or the first digits of a revision name.

    Raises:
        RefusedError: it names none, or several revisions.
    """
    head, _, back = name.partition("~")
    if head == "live":
        number = int(back) if back.isdecimal() and len(back) < 4 else -1 if back else 0
        if 0 <= number < len(pointer.entries):
            return pointer.entries[number]
    found = {each.revision: each for each in reversed(pointer.entries) if begins_revision(name.lower(), each.revision)}
    if len(found) == 1 and name:
        return next(iter(found.values()))
    known = ", ".join(short_revision(each.revision) for each in pointer.entries[:SHOWN])
    what = f"begins {len(found)} revisions" if found and name else "is no revision that was live"
    earlier = (
        f", live~1 to live~{len(pointer.entries) - 1}," if len(pointer.entries) > 1 else " (there is none before it)"
    )
    raise RefusedError(
        Refusal.UNKNOWN_REVISION,
        f"{name[:40]!r} {what}; give live{earlier} or the first digits of one: the last ones are {known}",
    )
