"""Status: the whole fleet at a glance, read from the stores and from every endpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tidegate.control.config import ControlPorts
from tidegate.control.desired import Desired, StateReader
from tidegate.control.failures import Failures
from tidegate.control.inspection import WAIT_S, Inspector, unreadable
from tidegate.control.reconcile import Action, Observation, Reconciler
from tidegate.errors import BundleError
from tidegate.ports import BadMark, Claim, Endpoint, EndpointState, GatewayReport, RegisteredEndpoint
from tidegate.rules import Engine, Target
from tidegate.rules.bundle import revision_json, rules_of

HISTORY = 10
"""How many flips are shown."""


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """A version of a model on an endpoint: `READY`, `LOADING` where its server is being filled, else `UNAVAILABLE`.

    `needed_by` says which revisions need it: `live`, `claimed`, `trying`, `rollback`, `draining`, `served`; empty: nobody does.
    """

    name: str
    version: int
    state: str
    needed_by: tuple[str, ...] = ()
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        reason = {"reason": self.reason} if self.reason else {}
        return {
            "name": self.name, "version": self.version, "state": self.state, "needed_by": list(self.needed_by),
        } | reason  # fmt: skip


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """An endpoint: its state in the registry, `down` where it gives no answer that can be read, `refused` where it is not
    trusted and so not asked (then `note` says why), and its models.

    `pid` is known where the process that asks runs the server.
    """

    url: str
    state: str
    seen_at: float
    note: str = ""
    pid: int | None = None
    models: tuple[ModelStatus, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "url": self.url,
            "pid": self.pid,
            "state": self.state,
            "seen_at": _iso(self.seen_at),
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
        """How many servers that are ready it lacks."""
        return max(0, self.replicas - sum(each.state == "ready" for each in self.endpoints))

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"name": self.name, "replicas": self.replicas, "endpoints": [each.as_dict() for each in self.endpoints]}


@dataclass(frozen=True, slots=True)
class RevisionStatus:
    """A revision whose models stay loaded, and why; who made it live last, when (Unix seconds) and why, where it was.
    `marked_bad` is the revision that it was made live in place of, where that was marked bad."""

    revision: str
    reason: str
    by: str = ""
    at: float | None = None
    why: str = ""
    action: str = ""
    marked_bad: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            **revision_json(self.revision),
            "reason": self.reason,
            "by": self.by,
            "at": None if self.at is None else _iso(self.at),
            "why": self.why,
            "action": self.action,
            "marked_bad": rules_of(self.marked_bad) or None,
        }


@dataclass(frozen=True, slots=True)
class FleetReport:
    """The fleet.

    Attributes:
        revisions: those whose models stay loaded, the live one first.
        history: the last flips, newest first.
        objectives: how many the live rules have.
        shards: every shard that the live rules have or that has an endpoint.
        claims: publishers and repairers at work.
        gateways: what each serves.
        drift: what would have to be changed on the endpoints.
        waiting: failed loads that this process tries again later.
        problems: what could not be read, and what cannot be.
        inspected_at: when it was last looked whether what is live is stored whole and answers; None: not yet.
        bad: the revisions that were rolled back, the last one first; they go live only if told so.
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

    @property
    def live(self) -> RevisionStatus | None:
        """The live revision; None where nothing was ever published."""
        return next((each for each in self.revisions if each.reason == "live"), None)

    @property
    def well(self) -> bool:
        """Whether something is live, every shard has its servers ready with all that they must hold, and everything could
        be read. What is loaded and not needed any more harms nobody."""
        lacking = any(action.action == "load" for action in self.drift)
        return self.live is not None and not (lacking or self.problems or any(each.short for each in self.shards))

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values: see docs/control-plane.md, "Fleet status"."""
        live = self.live
        return {
            "well": self.well,
            **revision_json(None if live is None else live.revision),
            "since": None if live is None or live.at is None else _iso(live.at),
            "objectives": self.objectives,
            "shards": [each.as_dict() for each in self.shards],
            "revisions": [each.as_dict() for each in self.revisions],
            "history": [each.as_dict() for each in self.history],
            "claims": [
                {
                    **revision_json(each.revision),
                    "by": each.by,
                    "expires_at": _iso(each.expires_at),
                    "stage": each.stage if each.revision else None,
                }
                for each in self.claims
            ],
            "gateways": [
                {"id": each.id, **revision_json(each.revision), "seen_at": _iso(each.seen_at)} for each in self.gateways
            ],
            "drift": [each.as_dict() for each in self.drift],
            "waiting": list(self.waiting),
            "problems": list(self.problems),
            "inspected_at": None if self.inspected_at is None else _iso(self.inspected_at),
            "bad": [
                {**revision_json(mark.revision), "by": mark.by, "at": _iso(mark.at), "why": mark.why}
                for mark in self.bad[:HISTORY]
            ],
        }


def unread(problem: str) -> FleetReport:
    """The report of a fleet of which nothing could be read."""
    return FleetReport((), (), 0, (), (), (), (), (), (problem,))


class StatusReader:
    """Reads the status of a fleet; changes nothing."""

    def __init__(self, ports: ControlPorts, reader: StateReader, reconciler: Reconciler, failures: Failures) -> None:
        self._ports = ports
        self._failures = failures
        self._reader = reader
        self._reconciler = reconciler
        self._inspector = Inspector(ports)

    async def read(self, pids: Mapping[Endpoint, int] | None = None, inspection_s: float = WAIT_S) -> FleetReport:
        """The fleet now.

        Args:
            pids: the process ids of the servers that the asking process runs.
            inspection_s: how long to wait for an inspection of what is live.

        Raises:
            StoreError: a store did not answer.
        """
        seen = await self._reconciler.observe(tuple(EndpointState))
        desired = seen.desired
        engine, problems = await self._engine(desired)
        inspected = await self._inspector.look(desired, _targets(seen, engine), inspection_s)
        ready = tuple(
            action
            for action in seen.drift()
            if action.url in {_url(e) for e in seen.entries if e.state is EndpointState.READY}
        )
        return FleetReport(
            revisions=tuple(_revision(desired, held.revision, held.reason) for held in desired.held),
            history=tuple(_history(desired)),
            objectives=0 if engine is None else len(engine.objectives),
            shards=tuple(_shards(seen, engine, pids or {}, self._failures)),
            claims=desired.claims,
            gateways=tuple(await self._ports.registry.gateways()),
            drift=ready,
            waiting=self._reconciler.waiting(seen),
            problems=tuple(
                dict.fromkeys(
                    (
                        *problems,
                        *seen.problems,
                        *inspected.problems,
                        *(f"{url}: {why}" for url, why in seen.unreachable.items()),
                        *(entry.note for entry in seen.refused),
                    )
                )
            ),
            inspected_at=inspected.at,
            bad=() if desired.pointer is None else desired.pointer.bad,
        )

    async def _engine(self, desired: Desired) -> tuple[Engine | None, tuple[str, ...]]:
        if desired.known is None:
            return None, ()
        try:
            return await self._reader.engine(desired.known.live.revision), ()
        except BundleError as error:
            return None, (unreadable(error),)


def _targets(seen: Observation, engine: Engine | None) -> dict[Endpoint, tuple[Target, ...]]:
    """The live targets of each server that is ready and answers."""
    targets = () if engine is None else engine.targets()
    return {
        entry.endpoint: tuple(target for target in targets if entry.endpoint.shard in target.shards)
        for entry in seen.loaded
        if entry.state is EndpointState.READY
    }


def _revision(desired: Desired, revision: str, reason: str) -> RevisionStatus:
    entries = () if desired.known is None else desired.known.entries
    entry = next((each for each in entries if each.revision == revision), None)
    if entry is None:
        by = next((each.by for each in desired.claims if each.revision == revision), "")
        return RevisionStatus(revision, reason, by)
    return RevisionStatus(revision, reason, entry.by, entry.at, entry.why, entry.action, entry.marked_bad)


def _history(desired: Desired) -> Iterator[RevisionStatus]:
    for entry in () if desired.known is None else desired.known.entries[:HISTORY]:
        yield RevisionStatus(entry.revision, "", entry.by, entry.at, entry.why, entry.action, entry.marked_bad)


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
            EndpointStatus(f"http://{entry.address}", "refused", entry.seen_at, entry.note)
            for entry in seen.refused
            if entry.shard == shard
        ]
        yield ShardStatus(shard, wanted.get(shard, 0), tuple(endpoints))


def _needs(desired: Desired) -> dict[str, dict[tuple[str, int], tuple[str, ...]]]:
    """Why each version of a model must be loaded, by shard."""
    needs: dict[str, dict[tuple[str, int], dict[str, None]]] = {}
    for held in desired.held:
        for shard, plan in (held.plans or {}).items():
            for load in plan:
                for version in load.versions:
                    needs.setdefault(shard, {}).setdefault((load.model, version), {})[held.reason] = None
    return {shard: {key: tuple(reasons) for key, reasons in found.items()} for shard, found in needs.items()}


def _endpoint(
    entry: RegisteredEndpoint,
    seen: Observation,
    needs: Mapping[tuple[str, int], tuple[str, ...]],
    pid: int | None,
    failures: Failures,
) -> EndpointStatus:
    url = _url(entry)
    if url in seen.unreachable:
        return EndpointStatus(url, "down", entry.seen_at, seen.unreachable[url], pid)
    loaded, waits = seen.loaded[entry], entry.state is EndpointState.LOADING
    there = {(model, version) for model, versions in loaded.items() for version in versions}
    models = []
    for name, version in sorted(there | needs.keys()):
        needed_by = needs.get((name, version), ())
        if (name, version) in there:
            models.append(ModelStatus(name, version, "READY", needed_by))
        else:
            reason = failures.known(entry.endpoint.shard, name)
            state = "LOADING" if waits and not reason else "UNAVAILABLE"
            models.append(ModelStatus(name, version, state, needed_by, reason))
    return EndpointStatus(url, entry.state, entry.seen_at, entry.note, pid, tuple(models))


def _url(entry: RegisteredEndpoint) -> str:
    return entry.endpoint.url


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
