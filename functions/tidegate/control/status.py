"""Status: the whole fleet at a glance, read from the stores and from every endpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tidegate.control.desired import Desired, Reason
from tidegate.control.endpoints import Times
from tidegate.control.failures import Failures
from tidegate.control.inspection import WAIT_S, unreadable
from tidegate.control.observe import Action, ActionKind, Late, Observation, observe, waiting
from tidegate.control.plane import ControlPlane
from tidegate.errors import BundleError
from tidegate.ports import BadMark, Claim, Endpoint, EndpointState, GatewayReport, LiveEntry, RegisteredEndpoint
from tidegate.ports.bundle_store import iso_time
from tidegate.rules import Engine, Target
from tidegate.rules.bundle import revision_json, rules_of

LATE = "the stores or a server did not answer within"
"""How the problem of a report begins that is of before, as none is there in time."""

HISTORY = 10
"""How many flips are shown."""


class ModelState(StrEnum):
    """State of a version of a model on an endpoint. `LOADING`: its server is being filled."""

    READY = "READY"
    LOADING = "LOADING"
    UNAVAILABLE = "UNAVAILABLE"


class ServerState(StrEnum):
    """State of an endpoint: that of the registry, or of its answer."""

    LOADING = EndpointState.LOADING.value
    READY = EndpointState.READY.value
    WEDGED = EndpointState.WEDGED.value
    DOWN = "down"
    """It gives no readable answer."""
    REFUSED = "refused"
    """It is not trusted, and therefore not asked."""


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """A version of a model on an endpoint, the reasons for which it is needed, and why it is not loaded."""

    name: str
    version: int
    state: ModelState
    needed_by: tuple[Reason, ...] = ()
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        reason = {"reason": self.reason} if self.reason else {}
        return {
            "name": self.name, "version": self.version, "state": self.state, "needed_by": list(self.needed_by),
        } | reason  # fmt: skip


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """An endpoint and its models. `note` says why it is down or refused; `pid` is known where the process that asks runs the
    server."""

    url: str
    pid: int | None
    state: ServerState
    seen_at: float
    note: str = ""
    models: tuple[ModelStatus, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {
            "url": self.url,
            "pid": self.pid,
            "state": self.state,
            "seen_at": iso_time(self.seen_at),
            "note": self.note,
            "models": [each.as_dict() for each in self.models],
        }


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """A shard: how many servers the live rules want (0: they do not have it), and those that there are."""

    name: str
    replicas: int
    endpoints: tuple[EndpointStatus, ...]

    @property
    def short(self) -> int:
        """The number of ready servers that it lacks."""
        return max(0, self.replicas - sum(each.state is ServerState.READY for each in self.endpoints))

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "replicas": self.replicas, "endpoints": [each.as_dict() for each in self.endpoints]}


@dataclass(frozen=True, slots=True)
class RevisionStatus:
    """A revision, why its models stay loaded, the flip that made it live last, and who made that or claims the revision."""

    revision: str
    reason: Reason | None
    by: str | None = None
    entry: LiveEntry | None = None

    def as_dict(self) -> dict[str, Any]:
        entry = self.entry
        return {
            **revision_json(self.revision),
            "reason": self.reason or "",
            "by": self.by or "",
            "at": entry and entry.when,
            "why": entry.why if entry else "",
            "action": entry.action if entry else "",
            "marked_bad": entry and entry.marked_bad and rules_of(entry.marked_bad),
        }


@dataclass(frozen=True, slots=True)
class FleetReport:
    """The fleet.

    Attributes:
        revisions: those whose models stay loaded, the live one first.
        shards: every shard that the live rules have or that has an endpoint.
        waiting: failed loads that this process tries again later.
        problems: what could not be read, and what cannot be.
        inspected_at: when it was last looked whether what is live is stored whole and answers; None: not yet.
        times: what the models of the ready servers took, where that was asked for; it is not in `as_dict`.
        bad: the revisions that were rolled back, the last one first; they go live only where a person says so.
    """

    revisions: tuple[RevisionStatus, ...]
    history: tuple[RevisionStatus, ...]
    objectives: int
    shards: tuple[ShardStatus, ...]
    claims: tuple[Claim, ...]
    gateways: tuple[GatewayReport, ...]
    drift: tuple[Action, ...]
    waiting: tuple[str, ...]
    problems: tuple[str, ...]
    bad: tuple[BadMark, ...] = ()
    inspected_at: float | None = None
    times: Times = field(default_factory=dict)

    @property
    def live(self) -> RevisionStatus | None:
        return next((each for each in self.revisions if each.reason is Reason.LIVE), None)

    @property
    def healthy(self) -> bool:
        """Whether a revision is live, every shard has its servers ready with all that they must hold, and everything could be
        read. Models that are loaded and not needed any more do no harm."""
        lacking = any(action.action is ActionKind.LOAD for action in self.drift)
        return self.live is not None and not (lacking or self.problems or any(each.short for each in self.shards))

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values: see docs/control-plane.md, "Fleet status"."""
        live = self.live
        return {
            "healthy": self.healthy,
            **revision_json(None if live is None else live.revision),
            "since": live and live.entry and live.entry.when,
            "objectives": self.objectives,
            "shards": [each.as_dict() for each in self.shards],
            "revisions": [each.as_dict() for each in self.revisions],
            "history": [each.as_dict() for each in self.history],
            "claims": [
                {
                    **revision_json(each.revision),
                    "by": each.by,
                    "expires_at": iso_time(each.expires_at),
                    "stage": each.stage if each.revision else None,
                }
                for each in self.claims
            ],
            "gateways": [
                {"id": each.id, **revision_json(each.revision), "seen_at": iso_time(each.seen_at)}
                for each in self.gateways
            ],
            "drift": [each.as_dict() for each in self.drift],
            "waiting": list(self.waiting),
            "problems": list(self.problems),
            "inspected_at": None if self.inspected_at is None else iso_time(self.inspected_at),
            "bad": [
                {**revision_json(mark.revision), "by": mark.by, "at": iso_time(mark.at), "why": mark.why}
                for mark in self.bad[:HISTORY]
            ],
        }


def unread(problem: str) -> FleetReport:
    return FleetReport((), (), 0, (), (), (), (), (), (problem,))


async def read_status(
    plane: ControlPlane,
    pids: Mapping[Endpoint, int] | None = None,
    inspection_s: float = WAIT_S,
    *,
    asks: bool = True,
    late: Late = tuple,
    timed: bool = False,
) -> FleetReport:
    """Read the fleet from the stores and from every endpoint. Changes nothing.

    `pids` are the process ids of the servers that the asking process runs; an inspection of what is live is waited for
    `inspection_s` seconds. A process that may not ask the servers says so by `asks`: then their state is what they report to the
    registry, and their models and the drift are not in the report. Nor are those of servers that are `late`. With `timed` the report
    has what models took, too.
    """
    seen = await observe(plane, tuple(EndpointState), asks=asks, late=late, timed=timed)
    desired = seen.desired
    engine, problems = await _engine(plane, desired)
    inspected = await plane.inspector.look(desired, _targets(seen, engine), inspection_s)
    ready = {entry.endpoint.url for entry in seen.entries if entry.state is EndpointState.READY}
    problems += (*seen.problems, *inspected.problems)
    problems += tuple(f"{url}: {why}" for url, why in seen.unreachable.items())
    problems += tuple(entry.note for entry in seen.refused)
    return FleetReport(
        revisions=tuple(_revision(desired, held.revision, held.reason) for held in desired.held),
        history=tuple(_flip(entry) for entry in _entries(desired)[:HISTORY]),
        objectives=0 if engine is None else len(engine.objectives),
        shards=tuple(_shards(seen, engine, pids or {}, plane.failures)),
        claims=desired.claims,
        gateways=desired.gateways,
        drift=tuple(action for action in seen.drift() if action.url in ready),
        waiting=waiting(plane, seen),
        problems=tuple(dict.fromkeys(problems)),
        inspected_at=inspected.at,
        bad=() if desired.pointer is None else desired.pointer.bad,
        times=seen.times,
    )


async def _engine(plane: ControlPlane, desired: Desired) -> tuple[Engine | None, tuple[str, ...]]:
    if desired.known is None:
        return None, ()
    try:
        return await plane.reader.engine(desired.known.live.revision), ()
    except BundleError as error:
        return None, (unreadable(error),)


def _targets(seen: Observation, engine: Engine | None) -> dict[Endpoint, tuple[Target, ...]]:
    targets = () if engine is None else engine.targets()
    return {
        entry.endpoint: tuple(target for target in targets if entry.endpoint.shard in target.shards)
        for entry in seen.loaded
        if entry.state is EndpointState.READY
    }


def _entries(desired: Desired) -> tuple[LiveEntry, ...]:
    return () if desired.known is None else desired.known.entries


def _revision(desired: Desired, revision: str, reason: Reason) -> RevisionStatus:
    entry = next((entry for entry in _entries(desired) if entry.revision == revision), None)
    if entry is None:
        by = next((claim.by for claim in desired.claims if claim.revision == revision), None)
        return RevisionStatus(revision, reason, by)
    return _flip(entry, reason)


def _flip(entry: LiveEntry, reason: Reason | None = None) -> RevisionStatus:
    return RevisionStatus(entry.revision, reason, entry.by, entry)


def _shards(
    seen: Observation, engine: Engine | None, pids: Mapping[Endpoint, int], failures: Failures
) -> Iterator[ShardStatus]:
    wanted = {} if engine is None else {name: shard.replicas for name, shard in engine.fleet.shards.items()}
    needs = _needs(seen.desired)
    trusted, refused = {entry.endpoint.shard for entry in seen.entries}, {entry.shard for entry in seen.refused}
    for shard in sorted(trusted | refused | wanted.keys()):
        endpoints = [
            _endpoint(entry, seen, needs.get(shard, {}), pids.get(entry.endpoint), failures)
            for entry in seen.entries
            if entry.endpoint.shard == shard
        ]
        endpoints += [
            EndpointStatus(f"http://{entry.address}", None, ServerState.REFUSED, entry.seen_at, entry.note)
            for entry in seen.refused
            if entry.shard == shard
        ]
        yield ShardStatus(shard, wanted.get(shard, 0), tuple(endpoints))


def _needs(desired: Desired) -> dict[str, dict[tuple[str, int], tuple[Reason, ...]]]:
    needs: dict[str, dict[tuple[str, int], dict[Reason, None]]] = {}
    for held in desired.held:
        for shard, plan in (held.plans or {}).items():
            for load in plan:
                for version in load.versions:
                    needs.setdefault(shard, {}).setdefault((load.model, version), {})[held.reason] = None
    return {shard: {key: tuple(reasons) for key, reasons in found.items()} for shard, found in needs.items()}


def _endpoint(
    entry: RegisteredEndpoint,
    seen: Observation,
    needs: Mapping[tuple[str, int], tuple[Reason, ...]],
    pid: int | None,
    failures: Failures,
) -> EndpointStatus:
    url = entry.endpoint.url
    if url in seen.unreachable:
        return EndpointStatus(url, pid, ServerState.DOWN, entry.seen_at, seen.unreachable[url])
    loaded, waits = seen.loaded.get(entry), entry.state is EndpointState.LOADING
    if loaded is None:
        return EndpointStatus(url, pid, ServerState(entry.state), entry.seen_at, entry.note)
    there = {(model, version) for model, versions in loaded.items() for version in versions}
    models = []
    for name, version in sorted(there | needs.keys()):
        needed_by = needs.get((name, version), ())
        if (name, version) in there:
            models.append(ModelStatus(name, version, ModelState.READY, needed_by))
        else:
            reason = failures.known(entry.endpoint.shard, name)
            state = ModelState.LOADING if waits and reason is None else ModelState.UNAVAILABLE
            models.append(ModelStatus(name, version, state, needed_by, reason))
    return EndpointStatus(url, pid, ServerState(entry.state), entry.seen_at, entry.note, tuple(models))
