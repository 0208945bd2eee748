"""Validate: check that every target is READY on every endpoint of its shards, and answers its golden requests."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from tidegate.control.claims import HeldClaim
from tidegate.control.endpoints import POLL_S, by_shard, each, loaded_on
from tidegate.control.rollout import LATER, Rollout
from tidegate.control.steps import Note
from tidegate.errors import EndpointError, StackError
from tidegate.ports import EndpointState, RegisteredEndpoint


async def validate(rollout: Rollout, held: HeldClaim, note: Note) -> None:
    """Check that every target is READY on every endpoint of its shards, and answers its golden requests. Load models that are
    missing by then: on a new server, or unloaded by a process that did not know of the claim.

    Raises:
        StackError: an endpoint does not answer, or a target is not READY or gives a wrong answer.
    """
    clock = rollout.plane.ports.clock
    deadline = clock() + rollout.plane.config.endpoint_wait_s
    await held.wait_for_unaware(note)
    while True:
        # In this order: a server that is ready by now is among those that are asked next.
        settled = await _is_settled(rollout, note)
        problems = await _find_problems(rollout, note)
        if settled and not problems:
            return
        if clock() > deadline:
            raise StackError(f"{problems[0] if problems else 'servers are still starting'}; {LATER}")
        await asyncio.sleep(POLL_S)


async def is_ready_everywhere(rollout: Rollout) -> bool:
    """Return whether every target is READY now on every endpoint of its shards that answers, and one of each shard does. A
    shard of which none does counts where that leaves nothing served worse than it is."""

    entries = await by_shard(rollout.plane)
    silent = []
    for shard in rollout.change.shards:
        results = await each(rollout.plane, entries.get(shard, ()), partial(_find_unready, rollout))
        answers = [result for result in results if not isinstance(result, EndpointError)]
        if any(answers):
            return False
        if not answers:
            silent.append(shard)
    rollout.presence.absent = tuple(silent)
    return not silent or await rollout.presence.serves_no_worse(silent)


async def _is_settled(rollout: Rollout, note: Note) -> bool:
    """Return whether no server can still turn ready that has not seen the proved claim.

    A server looks at what it must hold, and is registered ready at most `settle_s` later: one that was loading when the
    claim was proved may have looked before.
    """
    if rollout.plane.ports.clock() >= rollout.proved_at + rollout.plane.config.settle_s:
        return True
    loading = await by_shard(rollout.plane, EndpointState.LOADING)
    if loading.keys().isdisjoint(rollout.change.shards):
        return True
    note("waiting for a server that is starting")
    return False


async def _find_problems(rollout: Rollout, note: Note) -> list[str]:

    async def check(entry: RegisteredEndpoint) -> str | None:
        await rollout.load_on(entry, rollout.change.plan(entry.endpoint.shard), note)
        problem = await _find_unready(rollout, entry)
        if problem is None:
            for target in rollout.targets_on(entry.endpoint.shard):
                if target.name not in rollout.change.known:
                    await rollout.ask(entry, target, note)
        return problem

    entries = [entry for group in (await rollout.presence.groups(note)).values() for entry in group]
    results = await each(rollout.plane, entries, check)
    silent = [entry for entry, result in zip(entries, results, strict=True) if isinstance(result, EndpointError)]
    if await _can_do_without(rollout, entries, silent):
        results = [result for result in results if not isinstance(result, EndpointError)]
    return [str(result) for result in results if result is not None]


async def _find_unready(rollout: Rollout, entry: RegisteredEndpoint) -> str | None:
    # One call for all targets: a fleet has thousands of these, and many servers.
    loaded = await loaded_on(rollout.plane, entry)
    for target in rollout.targets_on(entry.endpoint.shard):
        if target.version not in loaded.get(target.model, ()):
            return f"target {target.name!r} is not READY on {entry.endpoint}"
    return None


async def _can_do_without(
    rollout: Rollout, entries: Sequence[RegisteredEndpoint], silent: Sequence[RegisteredEndpoint]
) -> bool:
    """Return whether the change does not wait for servers that do not answer: it is urgent, and others of their shards
    answer, or nothing is served worse without these shards."""
    if not rollout.change.is_urgent:
        return False
    answering = {entry.endpoint.shard for entry in entries if entry not in silent}
    absent = [shard for shard in rollout.change.shards if shard not in answering]
    if absent and not await rollout.presence.serves_no_worse(absent):
        return False
    rollout.presence.absent = tuple(absent)
    return True
