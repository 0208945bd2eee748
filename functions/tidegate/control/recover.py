"""Recover: rebuild a lost pointer to the live revision from other evidence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tidegate.control.plane import ControlPlane
from tidegate.errors import BundleError, StoreError
from tidegate.ports import FlipAction, GatewayReport, LiveEntry, Pointer
from tidegate.ports.store_rules import pointer_after, pointer_of
from tidegate.rules.bundle import begins_revision, revision_json, rules_of, short_revision

MOST_SHOWN = 10
START_OVER = "publish the rules again with `tidegate publish --start-over`"


class RecoveryStatus(StrEnum):
    """Progress of a recovery. `unchanged`: there is a pointer."""

    UNCHANGED = "unchanged"
    PLANNED = "planned"
    RECOVERED = "recovered"
    IMPOSSIBLE = "impossible"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A revision that was live.

    Attributes:
        lacking: the missing parts without which it cannot become live.
        missing_models: its models that are not stored, which servers that hold them do without.
    """

    revision: str
    shown_by: tuple[str, ...]
    lacking: tuple[str, ...] = ()
    missing_models: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {
            **revision_json(self.revision),
            "shown_by": list(self.shown_by),
            "lacking": list(self.lacking),
            "missing_models": list(self.missing_models),
        }


@dataclass(frozen=True, slots=True)
class Recovery:
    """Result of a recovery, or its plan.

    Attributes:
        damage: the damage of the pointer; None if it is missing or intact.
        candidates: the revisions that were live, the last one first.
        pointer: the pointer that exists, would be written, or was written.
        reason: why it is impossible, and what to do.
    """

    status: RecoveryStatus
    damage: str | None = None
    candidates: tuple[Candidate, ...] = ()
    pointer: Pointer | None = None
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        live = None if self.pointer is None else self.pointer.live
        return {
            "status": self.status,
            **revision_json(None if live is None else live.revision),
            "flip": None if live is None else live.sequence,
            "bad": [] if self.pointer is None else [rules_of(mark.revision) for mark in self.pointer.bad],
            "damage": self.damage or "",
            "reason": self.reason or "",
            "found": [each.as_dict() for each in self.candidates],
        }


async def plan_recovery(plane: ControlPlane, by: str, revision: str | None = None) -> Recovery:
    """Find the revisions that were live, and plan to make one live again: `revision`, or its beginning; None: the last one."""
    pointer = await plane.reader.pointer()
    if pointer is not None:
        return Recovery(RecoveryStatus.UNCHANGED, pointer=pointer)
    base = pointer_of(await plane.ports.bundles.flips(all_traces=True))
    gateways = await plane.ports.registry.gateways()
    damage = (await plane.reader.remains()).damage
    candidates = await _candidates(plane, base, gateways)
    try:
        chosen = _choose(candidates, base, gateways, revision, damage)
    except _ImpossibleError as error:
        return Recovery(RecoveryStatus.IMPOSSIBLE, damage, candidates, reason=str(error))
    return Recovery(RecoveryStatus.PLANNED, damage, candidates, _pointer_to(plane, base, chosen, by))


async def recover_pointer(plane: ControlPlane, planned: Recovery) -> Recovery:
    """Write the pointer of a planned recovery, if there is still none that can be read.

    Raises:
        ConflictError: somebody else wrote one first; it names who.
        StoreError: a store did not answer, or has something else afterwards.
    """
    assert planned.pointer is not None
    written = await plane.ports.bundles.restore(planned.pointer)
    now = await plane.reader.pointer()
    if now is None or now.entries != written.entries:
        raise StoreError("the pointer was written, and another is there now; see `tidegate status`")
    await plane.ports.bundles.record(written)
    return Recovery(RecoveryStatus.RECOVERED, planned.damage, planned.candidates, written)


def _pointer_to(plane: ControlPlane, base: Pointer | None, chosen: Candidate, by: str) -> Pointer:
    """Return the pointer as it was; with one more flip if another revision is to be live."""
    if base is not None and base.live.revision == chosen.revision:
        return base
    sequence = 1 if base is None else base.live.sequence + 1
    cleared = base is not None and base.mark(chosen.revision) is not None
    why = f"the pointer was lost: {', '.join(chosen.shown_by)}"
    at = plane.ports.clock()
    entry = LiveEntry(chosen.revision, sequence, by, at, why, FlipAction.RECOVER, cleared=cleared)
    return pointer_after(entry, base)


async def _candidates(
    plane: ControlPlane, base: Pointer | None, gateways: Sequence[GatewayReport]
) -> tuple[Candidate, ...]:
    shown = list(_shown(base, gateways).items())[:MOST_SHOWN]
    versions = await plane.ports.models.models() if shown else {}
    return tuple([await _candidate(plane, revision, tuple(by), versions) for revision, by in shown])


async def _candidate(
    plane: ControlPlane, revision: str, shown_by: tuple[str, ...], versions: Mapping[str, Sequence[int]]
) -> Candidate:
    lacking = []
    try:
        await plane.ports.bundles.bundle(revision)
    except BundleError as error:
        lacking.append(str(error))
    try:
        plans = await plane.ports.bundles.assignment(revision)
    except BundleError as error:
        return Candidate(revision, shown_by, (*lacking, str(error)))
    needed = {(load.model, version) for plan in plans.values() for load in plan for version in load.versions}
    missing = sorted(f"{model}/{version}" for model, version in needed if version not in versions.get(model, ()))
    return Candidate(revision, shown_by, tuple(lacking), tuple(missing))


def _shown(base: Pointer | None, gateways: Iterable[GatewayReport]) -> dict[str, list[str]]:
    """Return the revisions that were live, and what shows each: those that only gateways know first, since the history would
    have them if they were older, then the others, the last one first."""
    flips = () if base is None else base.entries
    in_history = {entry.revision for entry in flips}
    shown: dict[str, list[str]] = {}
    for each in sorted(gateways, key=lambda each: (each.revision in in_history, each.id)):
        if each.revision not in in_history:
            shown.setdefault(each.revision, []).append(f"gateway {each.id} serves it")
    for entry in flips:
        if entry.revision not in shown:
            shown[entry.revision] = [f"flip {entry.sequence} of the history, by {entry.by} ({entry.action})"]
            shown[entry.revision] += [
                f"gateway {each.id} serves it" for each in gateways if each.revision == entry.revision
            ]
    return shown


class _ImpossibleError(Exception):
    """No revision can be made live; the message says why, and what to do."""


def _choose(
    candidates: Sequence[Candidate],
    base: Pointer | None,
    gateways: Iterable[GatewayReport],
    wanted: str | None,
    damage: str | None,
) -> Candidate:
    if not candidates:
        also = "delete live/pointer.json, and " if damage else ""
        raise _ImpossibleError(
            "nothing shows what was live: no flip is in the history, and no gateway reports a revision; see whether it is "
            f"the right bucket; if it is, {also}{START_OVER}"
        )
    chosen = _last(candidates, base, gateways) if wanted is None else _named(candidates, wanted)
    if chosen.lacking:
        others = [short_revision(each.revision) for each in candidates if not each.lacking]
        instead = f"choose another with --revision {others[0]}, or " if others else ""
        raise _ImpossibleError(
            f"revision {short_revision(chosen.revision)} lacks what it needs: {'; '.join(chosen.lacking)}; {instead}put back what is "
            f"missing from an older version of the bucket's objects, or {START_OVER}"
        )
    return chosen


def _named(candidates: Sequence[Candidate], wanted: str) -> Candidate:
    found = [each for each in candidates if begins_revision(wanted.lower(), each.revision)]
    if len(found) == 1:
        return found[0]
    how = "begins several revisions" if found else "is none of the revisions that were live"
    raise _ImpossibleError(f"{wanted!r} {how}; name one of {_names(candidates)}")


def _last(candidates: Sequence[Candidate], base: Pointer | None, gateways: Iterable[GatewayReport]) -> Candidate:
    served = {each.revision for each in gateways}
    unknown = served - {entry.revision for entry in (base.entries if base else ())}
    if not unknown:
        return next(each for each in candidates if base is not None and each.revision == base.live.revision)
    if len(served) == 1:
        return candidates[0]
    raise _ImpossibleError(
        "gateways serve different revisions, and not all are in the history; name one with --revision: "
        f"{_names(candidates)}"
    )


def _names(candidates: Sequence[Candidate]) -> str:
    known = [each.revision for each in candidates]
    return ", ".join(short_revision(each, known) for each in known)
