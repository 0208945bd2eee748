"""Load: a revision's models go onto every server of their shards, on one of each shard first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tidegate.control.endpoints import each
from tidegate.control.rollout import Rollout
from tidegate.control.steps import Note
from tidegate.errors import EndpointError, ServerLostError
from tidegate.ports import Loaded, RegisteredEndpoint


async def load_models(rollout: Rollout, note: Note) -> None:
    """Load what is missing on every endpoint that is ready: on one of each shard first, and then on the others. Models
    that live does not know go on one server of each shard at a time, which must stay healthy before the next is begun.

    Raises:
        StackError: a model was refused, hung, or its server ended.
    """
    groups = await rollout.presence.groups(note)
    failed = False

    async def spread(group: Sequence[RegisteredEndpoint]) -> None:
        nonlocal failed
        before: dict[RegisteredEndpoint, Loaded] = {}
        try:
            for batch in _batches(rollout, group):
                if failed:
                    return
                for entry, loaded in before.items():
                    await rollout.check_unharmed(entry, loaded)
                before |= await _load_batch(rollout, group, batch, note)
        except BaseException:
            failed = True
            raise

    await each(rollout.plane, groups.values(), spread)


def _batches(rollout: Rollout, group: Sequence[RegisteredEndpoint]) -> Iterator[Sequence[RegisteredEndpoint]]:
    # Where nothing is live yet, nothing can be harmed, and the first start should not take longer than it must.
    first = 1 if rollout.desired.serves else len(group)
    yield group[:first]
    size = 1 if rollout.careful else len(group)
    for start in range(first, len(group), size):
        yield group[start : start + size]


async def _load_batch(
    rollout: Rollout, group: Sequence[RegisteredEndpoint], batch: Sequence[RegisteredEndpoint], note: Note
) -> dict[RegisteredEndpoint, Loaded]:
    """Load on some servers of a shard's group at once. Return those that must be checked again, with what they must still
    hold."""

    lost: dict[RegisteredEndpoint, ServerLostError] = {}

    async def load(entry: RegisteredEndpoint) -> Loaded:
        shard = entry.endpoint.shard
        targets = [target for target in rollout.untried.targets if shard in target.shards] if rollout.careful else []
        return await rollout.prove_on(entry, rollout.change.plan(shard), targets, note)

    async def load_unless_lost(entry: RegisteredEndpoint) -> Loaded | None:
        try:
            return await load(entry)
        except ServerLostError as error:
            lost[entry] = error
            return None

    results = list(zip(batch, await each(rollout.plane, batch, load_unless_lost), strict=True))
    # Only now that all have loaded: a model that has ended two servers is not loaded on the successor of one.
    for error in lost.values():
        if not rollout.take_repeat(error):
            raise error
    for entry, error in lost.items():
        note(f"{entry.endpoint} ended or did not answer while it loaded {error.model!r}; waiting for its successor")
        successor = await rollout.presence.successor(entry, group)
        if successor is None:
            raise error
        results += zip([successor], await each(rollout.plane, [successor], load), strict=True)
    before = {}
    for entry, result in results:
        if isinstance(result, EndpointError):
            note(f"{result}; it is asked again before the flip")
        elif rollout.careful and result is not None:
            before[entry] = result
    return before
