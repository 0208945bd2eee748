"""`GET /v1/overview`: what is live, how the traffic goes, the state of the shards, and what needs a person's attention."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from tidegate import __version__
from tidegate.console.attention import attention
from tidegate.console.live_rules import LiveRules, OpenedRules
from tidegate.console.sources import ConsoleSources
from tidegate.console.traffic import Figures
from tidegate.console.traffic_reads import figures_json
from tidegate.control.status import ServerState
from tidegate.errors import BundleError, StoreError
from tidegate.ports import Pointer
from tidegate.ports.bundle_store import iso_time
from tidegate.rules.bundle import revision_json
from tidegate.rules.contract import Objective

WINDOW_S = 60.0
OPENING_S = 2.0
"""The longest wait for the live rules, which a store that hangs gives late; they are read further."""

Json = Mapping[str, Any]


async def overview(sources: ConsoleSources, live: LiveRules) -> dict[str, Any]:
    """Return the overview. It answers also while stores or servers do not, and says so under `attention`."""
    status = await sources.status()
    pointer: Pointer | None = None
    opened: OpenedRules | None = None
    # The fleet's status names the problem.
    with contextlib.suppress(StoreError, BundleError, TimeoutError):
        pointer = await live.pointer()
        async with asyncio.timeout(OPENING_S):
            opened = await live.opened(pointer.live.revision)
    objectives = {} if opened is None else opened.revision.engine.objectives
    traffic, uncounted = sources.traffic, None
    whole, history = None, None
    by_objective: Mapping[str, Figures] = {}
    if traffic is not None:
        try:
            by_objective, history = await traffic.objectives(WINDOW_S), await traffic.history()
            whole = await traffic.whole(WINDOW_S)
        except StoreError as error:
            history, uncounted = None, str(error)
    return {
        "as_of": iso_time(time.time()),
        "stack": {
            "version": __version__,
            "rules": None if sources.rules is None else str(sources.rules),
            "models": None if sources.models is None else str(sources.models),
            "writes": sources.writes,
        },
        "live": _live(pointer),
        "publishing": [
            {
                "revision": claim["revision"],
                "by": claim["by"],
                "why": None,
                "stage": claim["stage"],
                "expires_at": claim["expires_at"],
            }
            for claim in status["claims"]
            if claim["revision"]
        ],
        "traffic": {"window_s": WINDOW_S, **_rated(whole)},
        "objectives": [
            _objective(objective, None if whole is None else by_objective.get(name, Figures(covered_s=whole.covered_s)))
            for name, objective in sorted(objectives.items())
        ],
        "history": None if history is None else history._asdict(),
        "shards": list(_shards(status)),
        "attention": await attention(sources, status, opened, pointer, uncounted),
    }


def _live(pointer: Pointer | None) -> dict[str, Any] | None:
    if pointer is None:
        return None
    live, arrival = pointer.live, pointer.arrival
    return {
        **revision_json(live.revision),
        "flip": live.sequence,
        "since": arrival.when,
        "by": arrival.by,
        "why": arrival.why,
    }


def _rated(figures: Figures | None) -> dict[str, Any]:
    found = figures or Figures()
    return {"requests_per_s": found.requests_per_s, **figures_json(found)}


def _objective(objective: Objective, figures: Figures | None) -> dict[str, Any]:
    return {
        "name": objective.name,
        "summary": objective.summary,
        "owner": objective.owner,
        **_rated(figures),
    }


def _shards(status: Json) -> Iterator[dict[str, Any]]:
    loads = {each["url"]: each for each in status.get("gateway", {}).get("endpoints", ())}
    for shard in status["shards"]:
        endpoints = shard["endpoints"]
        found = [loads[each["url"]] for each in endpoints if each["url"] in loads]
        queues = [each["queue"] for each in found if each["queue"] is not None]
        ready = sum(each["state"] == ServerState.READY for each in endpoints)
        yield {
            "name": shard["name"],
            "endpoints": max(len(endpoints), shard["replicas"]),
            "ready": ready,
            "outstanding": sum(each["outstanding"] for each in found),
            "queue": sum(queues) if queues else None,
            "problem": _problem(shard, ready),
        }


def _problem(shard: Json, ready: int) -> str | None:
    lacking = shard["replicas"] - ready
    if lacking <= 0:
        # The registry does not say so yet.
        silent = [each for each in shard["endpoints"] if each.get("unanswered_s") is not None]
        return "; ".join(f"{each['url']}: {each['note']}" for each in silent) or None
    bad = [each for each in shard["endpoints"] if each["state"] != ServerState.READY]
    notes = [f"{each['url']} is {each['state']}" + (f": {each['note']}" if each["note"] else "") for each in bad]
    return "; ".join([f"{lacking} of {shard['replicas']} servers {'is' if lacking == 1 else 'are'} not ready", *notes])
