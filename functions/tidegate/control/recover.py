"""Recover: the pointer to the live revision is made again from what is left of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tidegate.control.config import ControlPorts
from tidegate.control.desired import StateReader
from tidegate.errors import BundleError, StoreError
from tidegate.ports import GatewayReport, LiveEntry, Pointer
from tidegate.ports.store_rules import pointer_after, pointer_of
from tidegate.rules.bundle import begins_revision, revision_json, rules_of, short_revision

Status = Literal["unchanged", "planned", "recovered", "impossible"]
MOST_SHOWN = 10
START_OVER = "publish the rules again with `tidegate publish --start-over`"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A revision that was live: what shows it, what is `lacking` without which it cannot be live, and which of its models
    are not stored, which servers that hold them do without."""

    revision: str
    shown_by: tuple[str, ...]
    lacking: tuple[str, ...] = ()
    missing_models: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            **revision_json(self.revision),
            "shown_by": list(self.shown_by),
            "lacking": list(self.lacking),
            "missing_models": list(self.missing_models),
        }


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was found, and what would be or was made live.

    Attributes:
        status: `unchanged` where there is a pointer; `planned`; `recovered`; `impossible`, and then `reason` says why and what
            to do.
        damage: what is wrong with the pointer; empty where it is gone, or there.
        candidates: the revisions that were live, the last one first.
        pointer: the pointer that is there, would be written, or was.
        reason: see `status`.
    """

    status: Status
    damage: str = ""
    candidates: tuple[Candidate, ...] = ()
    pointer: Pointer | None = None
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        live = None if self.pointer is None else self.pointer.live
        return {
            "status": self.status,
            **revision_json(None if live is None else live.revision),
            "flip": None if live is None else live.sequence,
            "bad": [] if self.pointer is None else [rules_of(mark.revision) for mark in self.pointer.bad],
            "damage": self.damage,
            "reason": self.reason,
            "found": [each.as_dict() for each in self.candidates],
        }


class Recoverer:
    """Makes a lost pointer again."""

    def __init__(self, ports: ControlPorts, reader: StateReader) -> None:
        self._ports = ports
        self._reader = reader

    async def look(self, by: str, revision: str | None = None) -> Recovery:
        """See what was live, and what can be made live again; nothing is changed.

        Args:
            by: who recovers, for the history.
            revision: the revision to make live, or its beginning; None: the last that was live.

        Raises:
            StoreError: a store did not answer.
        """
        pointer = await self._reader.pointer()
        if pointer is not None:
            return Recovery("unchanged", pointer=pointer)
        flips = await self._ports.bundles.flips(all_traces=True)
        gateways = await self._ports.registry.gateways()
        base = pointer_of(flips)
        damage = (await self._reader.remains()).damage
        candidates = await self._candidates(base, gateways)
        if not candidates:
            return Recovery("impossible", damage, reason=f"nothing shows what was live: {_nothing(damage)}")
        chosen, reason = _choose(candidates, base, gateways, revision)
        if chosen is None:
            return Recovery("impossible", damage, candidates, reason=reason)
        if chosen.lacking:
            what = f"revision {chosen.revision[:12]} lacks what it needs: {'; '.join(chosen.lacking)}"
            others = [each.revision[:12] for each in candidates if not each.lacking]
            instead = f"choose another with --revision {others[0]}, or " if others else ""
            advice = f"{instead}put back what is missing from an older version of the bucket's objects, or {START_OVER}"
            return Recovery("impossible", damage, candidates, reason=f"{what}; {advice}")
        return Recovery("planned", damage, candidates, self._pointer(base, chosen, by))

    async def recover(self, planned: Recovery) -> Recovery:
        """Write the pointer of a planned recovery, if there is still none that can be read.

        Raises:
            ConflictError: somebody was faster; it names who.
            StoreError: a store did not answer, or has something else afterwards.
        """
        assert planned.pointer is not None
        written = await self._ports.bundles.restore(planned.pointer)
        now = await self._reader.pointer()
        if now is None or now.entries != written.entries:
            raise StoreError("the pointer was written, and another is there now; see `tidegate status`")
        await self._ports.bundles.record(written)
        return Recovery("recovered", planned.damage, planned.candidates, written)

    def _pointer(self, base: Pointer | None, chosen: Candidate, by: str) -> Pointer:
        """The pointer as it was; with one more flip where another revision is to be live."""
        if base is not None and base.live.revision == chosen.revision:
            return base
        sequence = 1 if base is None else base.live.sequence + 1
        cleared = base is not None and base.mark(chosen.revision) is not None
        why = f"the pointer was lost: {', '.join(chosen.shown_by)}"
        entry = LiveEntry(chosen.revision, sequence, by, self._ports.clock(), why, "recover", cleared=cleared)
        return pointer_after(entry, base)

    async def _candidates(self, base: Pointer | None, gateways: Sequence[GatewayReport]) -> tuple[Candidate, ...]:
        shown = _shown(base, gateways)
        versions = await self._ports.models.models() if shown else {}
        return tuple(
            [await self._candidate(revision, tuple(by), versions) for revision, by in list(shown.items())[:MOST_SHOWN]]
        )

    async def _candidate(
        self, revision: str, shown_by: tuple[str, ...], versions: Mapping[str, Sequence[int]]
    ) -> Candidate:
        lacking = []
        try:
            await self._ports.bundles.bundle(revision)
        except BundleError as error:
            lacking.append(str(error))
        try:
            plans = await self._ports.bundles.assignment(revision)
        except BundleError as error:
            return Candidate(revision, shown_by, (*lacking, str(error)))
        needed = {(load.model, version) for plan in plans.values() for load in plan for version in load.versions}
        missing = sorted(f"{model}/{version}" for model, version in needed if version not in versions.get(model, ()))
        return Candidate(revision, shown_by, tuple(lacking), tuple(missing))


def _shown(base: Pointer | None, gateways: Iterable[GatewayReport]) -> dict[str, list[str]]:
    """The revisions that were live, and what shows each: those that only gateways know first, since the history would have
    them if they were older, then the others, the last one first."""
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


def _choose(
    candidates: Sequence[Candidate], base: Pointer | None, gateways: Iterable[GatewayReport], wanted: str | None
) -> tuple[Candidate | None, str]:
    """The revision to make live; where there is none, why not."""
    known = [each.revision for each in candidates]
    shown = ", ".join(short_revision(each, known) for each in known)
    if wanted is not None:
        found = [each for each in candidates if begins_revision(wanted.lower(), each.revision)]
        if len(found) == 1:
            return found[0], ""
        how = "begins several revisions" if found else "is none of the revisions that were live"
        return None, f"{wanted!r} {how}; name one of {shown}"
    served = {each.revision for each in gateways}
    unknown = served - {entry.revision for entry in (base.entries if base else ())}
    if not unknown:
        return next(each for each in candidates if base is not None and each.revision == base.live.revision), ""
    if len(served) == 1:
        return candidates[0], ""
    return (
        None,
        f"gateways serve different revisions, and not all are in the history; name one with --revision: {shown}",
    )


def _nothing(damage: str) -> str:
    also = "delete live/pointer.json, and " if damage else ""
    return (
        "no flip is in the history, and no gateway reports a revision; see whether it is the right bucket; if it is, "
        f"{also}{START_OVER}"
    )
