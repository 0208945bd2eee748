"""What needs a person: problems first, then what will be one, then what somebody should know."""

from __future__ import annotations

import json
import shlex
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any

from tidegate.console.example import example
from tidegate.console.live_rules import OpenedRules
from tidegate.console.sources import ConsoleSources
from tidegate.control.observe import ActionKind
from tidegate.control.status import LATE, ServerState
from tidegate.ports import Pointer
from tidegate.ports.bundle_store import FlipAction, iso_time
from tidegate.rules.bundle import short_revision
from tidegate.rules.bundle.rule import Rule
from tidegate.rules.times import parse_time

Json = Mapping[str, Any]

EXPIRING_S = 7 * 86_400.0
MARKED_S = 7 * 86_400.0
"""How long a revision that was marked bad is shown."""

FEWEST_REQUESTS = 100
"""Requests of an objective without which a rule that none of them reached says nothing."""

LATE_S = 6.0
"""The age of the fleet's status up to which it does not matter that no newer one came in time, as on a busy machine."""

FAILING_SHADOW = 0.05
"""The share of a shadow's copies that fail, above which it is shown."""

FEWEST_COPIES = 20
MOST_OF_A_KIND = 20

PAUSED_BY = {
    FlipAction.PUBLISH: "published other rules",
    FlipAction.ROLLBACK: "rolled back",
    FlipAction.RECOVER: "chose what is live",
    FlipAction.PAUSE: "paused it",
}
"""What somebody did that ended the following of the rules directory."""


class Kind(StrEnum):
    """A kind of item, in the order in which they are shown within a severity."""

    PROBLEM = "problem"
    ENDPOINT_DOWN = "endpoint-down"
    DRIFT = "drift"
    LOAD_FAILING = "load-failing"
    BREAKER_OPEN = "breaker-open"
    REJECTED = "rejected"
    FOLLOW_PAUSED = "follow-paused"
    GUARD_TRIPPED = "guard-tripped"
    DEGRADED = "degraded"
    WINDOW_EXPIRING = "window-expiring"
    RULE_UNMATCHED = "rule-unmatched"
    SHADOW_FAILING = "shadow-failing"


class Severity(StrEnum):
    """How urgent an item is; the worst is shown first."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that needs attention: in a sentence, since when (ISO 8601), a command that shows or mends it, and the console's page
    that does."""

    kind: Kind
    severity: Severity
    text: str
    since: str | None = None
    command: str | None = None
    page: str | None = None


async def attention(
    sources: ConsoleSources,
    status: Json,
    opened: OpenedRules | None,
    pointer: Pointer | None,
    uncounted: str | None = None,
) -> list[dict[str, Any]]:
    """Return the items, the most urgent first; of many of a kind the first `MOST_OF_A_KIND`, and how many more there are. `uncounted` says
    why the traffic cannot be read, where it cannot."""
    items = [*_servers(status), *_problems(status), *_changes(status, () if opened is None else opened.rules)]
    if opened is not None:
        items += _windows(opened, time.time())
    if uncounted is not None:
        items.append(Item(Kind.PROBLEM, Severity.WARNING, f"the figures of the traffic cannot be read: {uncounted}"))
    elif opened is not None and pointer is not None:
        items += await _unmatched(sources, opened, pointer)
    if sources.pairs is not None:
        items += _shadows(await sources.pairs())
    order = list(Severity)
    return [asdict(each) for each in sorted(_bounded(items), key=lambda each: order.index(each.severity))]


def _bounded(items: Iterable[Item]) -> Iterator[Item]:
    counts: Counter[Kind] = Counter()
    last: dict[Kind, Item] = {}
    for item in items:
        counts[item.kind] += 1
        if counts[item.kind] <= MOST_OF_A_KIND:
            yield item
            last[item.kind] = item
    for kind, count in counts.items():
        if count > MOST_OF_A_KIND:
            shown = last[kind]
            yield Item(
                kind, shown.severity, f"{count - MOST_OF_A_KIND} more of this kind", None, shown.command, shown.page
            )


def _servers(status: Json) -> Iterator[Item]:
    for shard in status["shards"]:
        ready = sum(each["state"] == ServerState.READY for each in shard["endpoints"])
        if ready < shard["replicas"]:
            text = f"shard {shard['name']}: {ready} of {shard['replicas']} servers ready"
            bad = [each for each in shard["endpoints"] if each["state"] != ServerState.READY]
            notes = [
                f"{each['url']} is {each['state']}" + (f" ({each['note']})" if each["note"] else "") for each in bad
            ]
            severity = Severity.WARNING if ready else Severity.ERROR
            yield Item(
                Kind.ENDPOINT_DOWN,
                severity,
                ": ".join(filter(None, [text, ", ".join(notes)])),
                None,
                "tidegate status",
                "/console/fleet",
            )
    for load in status.get("gateway", {}).get("endpoints", ()):
        where = f"{load['url']} of shard {load['shard']}"
        if load["is_down"]:
            text = f"{where} gets no requests until it answers for its health"
            yield Item(Kind.ENDPOINT_DOWN, Severity.WARNING, text, None, "tidegate status", "/console/fleet")
        for place in load["places"]:
            if place["is_open"]:
                text = f"the breaker of model {place['model']} on {where} is open: it gets no requests there"
                yield Item(Kind.BREAKER_OPEN, Severity.WARNING, text, None, "tidegate status", "/console/fleet")
            elif place["ejected_until"] is not None:
                text = f"model {place['model']} on {where} is ejected until {place['ejected_until']}: it fails or is slower than elsewhere"
                yield Item(Kind.BREAKER_OPEN, Severity.WARNING, text, None, "tidegate status", "/console/fleet")


def _problems(status: Json) -> Iterator[Item]:
    as_of = status.get("as_of")
    for text in status["problems"]:
        if text.startswith(LATE) and as_of is not None and time.time() - parse_time(as_of) <= LATE_S:
            continue
        yield Item(Kind.PROBLEM, Severity.ERROR, text, as_of, "tidegate status", "/console/fleet")
    loads = [each for each in status["drift"] if each["action"] == ActionKind.LOAD]
    for load in loads:
        text = f"model {load['model']} is to be loaded on {load['url']} of shard {load['shard']}"
        yield Item(Kind.DRIFT, Severity.WARNING, text, None, "tidegate reconcile --dry-run", "/console/fleet")
    for text in status["waiting"]:
        yield Item(Kind.LOAD_FAILING, Severity.ERROR, text, None, "tidegate status --models", "/console/fleet")
    for text in status.get("degraded", ()):
        yield Item(Kind.DEGRADED, Severity.WARNING, text, None, "tidegate status", "/console/fleet")


def _changes(status: Json, objectives: Collection[str]) -> Iterator[Item]:
    """Yield what became of the last changes of the rules, of which `objectives` are live."""
    rejected = status.get("rules", {}).get("last_rejected")
    if rejected is not None:
        # The first line counts the mistakes, and the second one is the first of them.
        text = (
            f"the last change of the rules was refused: {': '.join(rejected['findings'][:2]) or 'no reason is known'}"
        )
        directory = status.get("follow", {}).get("rules")
        command = None if directory is None else shlex.join(["tidegate", "rules", "check", directory])
        yield Item(
            Kind.REJECTED, Severity.ERROR, text, rejected["at"], command, _editor(rejected["findings"], objectives)
        )
    follow = status.get("follow", {})
    if follow.get("ended"):
        text = f"changes of the rules are no longer noticed: {follow['ended']}"
        yield Item(Kind.FOLLOW_PAUSED, Severity.ERROR, text, None, "tidegate follow status", "/console/rules/history")
    paused = follow.get("paused")
    if paused is not None:
        why = f": {paused['why']}" if paused["why"] else ""
        text = f"the rules directory is not followed, since {paused['by']} {PAUSED_BY[paused['action']]}{why}"
        yield Item(
            Kind.FOLLOW_PAUSED, Severity.WARNING, text, paused["at"], "tidegate follow resume", "/console/rules/history"
        )
    now = time.time()
    for mark in status["bad"]:
        if now - parse_time(mark["at"]) <= MARKED_S:
            why = f": {mark['why']}" if mark["why"] else ""
            text = f"revision {short_revision(mark['revision'])} was marked bad by {mark['by']}{why}"
            yield Item(
                Kind.GUARD_TRIPPED, Severity.WARNING, text, mark["at"], "tidegate history", "/console/rules/history"
            )


def _editor(findings: Sequence[str], objectives: Collection[str]) -> str:
    """Return the page with the refused files: the playground of the objective that the first finding is about, or of any."""
    named = (PurePosixPath(each.partition(":")[0]).stem for each in findings[1:])
    objective = next((each for each in named if each in objectives), next(iter(sorted(objectives)), ""))
    return f"/console/playground/{objective}?edited" if objective else "/console/rules"


def _windows(opened: OpenedRules, now: float) -> Iterator[Item]:
    for objective, rule, end in sorted(opened.windows, key=lambda each: each[2]):
        if end <= now:
            text = f"rule {rule} of {objective} has ended and matches nothing any more"
            yield Item(
                Kind.WINDOW_EXPIRING, Severity.INFO, text, iso_time(end), None, f"/console/objectives/{objective}"
            )
        elif end <= now + EXPIRING_S:
            text = f"rule {rule} of {objective} ends at {iso_time(end)}"
            yield Item(Kind.WINDOW_EXPIRING, Severity.WARNING, text, None, None, f"/console/objectives/{objective}")


async def _unmatched(sources: ConsoleSources, opened: OpenedRules, pointer: Pointer) -> list[Item]:
    """Return the rules that no request reached since they are live, as far as the counts go back."""
    if sources.traffic is None:
        return []
    live_at, now = pointer.arrival.at, time.time()
    last_at = await sources.traffic.last_at()
    if last_at is None:
        return []
    objectives = await sources.traffic.objectives(now - live_at)
    busy = [name for name, each in objectives.items() if each.requests >= FEWEST_REQUESTS and name in opened.rules]
    return [
        Item(
            Kind.RULE_UNMATCHED,
            Severity.INFO,
            f"rule {rule.id} of {name} decided none of the last {objectives[name].requests} requests",
            None,
            _finds(opened, name, rule),
            f"/console/objectives/{name}",
        )
        for name in sorted(busy)
        for rule in opened.rules[name]
        if last_at.get((name, rule.id), 0.0) < live_at and _is_active(rule, now)
    ]


def _finds(opened: OpenedRules, objective: str, rule: Rule) -> str:
    """Return a command that shows who gets a rule, or what those get instead who meet its conditions."""
    context = example(opened.revision.engine.objectives[objective], rule)
    given = ["--context", json.dumps(context, ensure_ascii=False)] if context else []
    return shlex.join(
        ["tidegate", "rules", "find-member", "live:", "--objective", objective, "--rule", rule.id, *given]
    )


def _is_active(rule: Rule, now: float) -> bool:
    start, end = rule.active or (None, None)
    return (start is None or start <= now) and (end is None or now < end)


def _shadows(pairs: Iterable[Json]) -> Iterator[Item]:
    for pair in pairs:
        failed, sent = sum(pair["shadow_failed"].values()), pair["sent"]
        if sent >= FEWEST_COPIES and failed > FAILING_SHADOW * sent:
            text = f"shadow {pair['shadow']} of rule {pair['rule']} of {pair['objective']} failed {failed} of {sent} copies"
            yield Item(
                Kind.SHADOW_FAILING,
                Severity.WARNING,
                text,
                pair["last_at"],
                "tidegate shadow report",
                f"/console/objectives/{pair['objective']}",
            )
