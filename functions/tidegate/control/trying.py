"""Try: load and ask models that no live revision has served on one server first, so that one that hangs, ends its server or
takes all memory costs only that server.

If this process can start servers, it is a scratch server, which is stopped afterwards; else one of the fleet.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence

from tidegate.control.endpoints import load_on, loaded_on, located
from tidegate.control.plane import ControlPlane, FailedTry
from tidegate.control.plans import closures
from tidegate.control.rollout import LATER, REPAIR, Rollout, Untried, find_untried, label
from tidegate.control.steps import Note, Steps
from tidegate.errors import EndpointError, EndpointTimeoutError, ModelLoadError, PublishError, StackError
from tidegate.ports import GoldenOutcome, Loaded, ModelLoad, ModelServer, RegisteredEndpoint, ScratchServers, Unit
from tidegate.rules import Target

STEP = "try"

ENDED_S = 2.0
"""Longest wait for the end of a lost scratch server, to report how it ended."""

TRY_KEPT_S = 600.0
"""How long a failed try is not repeated when a followed directory changes: a hang costs minutes each time."""

_TRIED_BEFORE = (
    "it was not tried again, as nothing of it has changed; repair the model and save it again, or run `tidegate follow "
    "resume` to have it tried as it is"
)


async def try_models(rollout: Rollout, steps: Steps) -> None:
    """Load the models that were never live on one server, and ask them, before other servers load them.

    Raises:
        PublishError: a model was refused, hung, ended its server or answered wrongly, or could not be tried.
    """
    plane, change = rollout.plane, rollout.change
    rollout.untried = find_untried(change, rollout.desired)
    if not rollout.untried.models:
        steps.skip(STEP, "every model has been live before")
        return
    if not rollout.desired.serves:
        steps.skip(STEP, "nothing is live that a model could harm")
        return
    rollout.careful = True
    with steps.step(STEP) as step:
        content = (change.revision, frozenset(change.pins.items()))
        failed = plane.failed_tries.pop(content, None)
        if failed is not None and not change.retries and plane.ports.clock() < failed.at + TRY_KEPT_S:
            plane.failed_tries[content] = failed
            raise StackError(f"{failed.reason}\n{_TRIED_BEFORE}")
        try:
            if plane.ports.scratch is None:
                await _try_on_fleet(rollout, step.note)
            else:
                await _try_on_scratch(plane, plane.ports.scratch, rollout.untried, step.note)
        except PublishError as error:
            # The model is to blame; that no server could be started, or none answered, says nothing of it.
            _remember(plane, content, str(error))
            raise
        count = len(rollout.untried.models)
        step.outcome = f"{count} {'models do' if count > 1 else 'model does'} no harm"


def _remember(plane: ControlPlane, content: tuple[str, frozenset[tuple[Unit, str]]], reason: str) -> None:
    """Note a failed try, and forget those that have become too old to count."""
    now = plane.ports.clock()
    for each in [each for each, failed in plane.failed_tries.items() if now >= failed.at + TRY_KEPT_S]:
        del plane.failed_tries[each]
    plane.failed_tries[content] = FailedTry(now, reason)


async def _try_on_fleet(rollout: Rollout, note: Note) -> None:
    """Try each model on one server of the shard with the most servers. Raises `StackError`: a model has no server to be tried
    on."""
    change, untried = rollout.change, rollout.untried
    groups = await rollout.presence.groups(note)
    left = dict(untried.models)
    tried: dict[RegisteredEndpoint, Loaded] = {}
    for shard in sorted(groups, key=lambda shard: (-len(groups[shard]), shard)):
        here = {load.model: left.pop(load.model) for load in change.plan(shard) if load.model in left}
        if here:
            entry = await _first_answering(rollout, groups[shard])
            note(f"trying {', '.join(sorted(here))} on {entry.endpoint}")
            targets = [target for target in untried.targets if target.model in here]
            with _blamed():
                tried[entry] = await rollout.prove_on(entry, closures(change.plan(shard), here), targets, note)
    await asyncio.sleep(rollout.plane.config.soak_s if tried else 0.0)
    for entry, before in tried.items():
        with _blamed():
            await rollout.check_unharmed(entry, before)
    for model in left:
        shards = [shard for shard, plan in change.plans.items() if any(load.model == model for load in plan)]
        if not change.is_urgent and not await rollout.presence.may_sleep(shards):
            raise StackError(
                f"model {model!r} was never live, and no server is ready that it could be tried on: start one of shard "
                f"{shards[0]!r}, and publish again"
            )
        note(f"model {model!r} could not be tried, as no server is ready that needs it")


async def _first_answering(rollout: Rollout, group: Sequence[RegisteredEndpoint]) -> RegisteredEndpoint:
    for entry in group:
        with contextlib.suppress(EndpointError):
            await loaded_on(rollout.plane, entry)
            return entry
    raise StackError(f"{group[0].endpoint} does not answer, and its shard has no other server; {LATER}")


@contextlib.contextmanager
def _blamed() -> Iterator[None]:
    """Blame the model for an error, as a try on a scratch server does."""
    try:
        yield
    except StackError as error:
        raise PublishError(STEP, str(error)) from error


async def _try_on_scratch(plane: ControlPlane, scratch: ScratchServers, untried: Untried, note: Note) -> None:
    """Start a server that gets no callers' requests, load and ask the new models, check that it stays healthy, and stop it."""
    note("starting a scratch server")
    server = await scratch.launch(untried.closures)
    try:
        for load in untried.closures:
            note(f"loading {label(load)} on the scratch server")
            await _load(plane, server, load)
        loaded_at = plane.ports.clock()
        for target in untried.targets:
            await _ask(plane, server, target)
        await asyncio.sleep(max(0.0, loaded_at + plane.config.soak_s - plane.ports.clock()))
        await _check_ready(plane, server, untried)
    finally:
        await server.kill()


async def _load(plane: ControlPlane, server: ModelServer, load: ModelLoad) -> None:
    try:
        await load_on(server.repository, load, plane.config.load_timeout_s, plane.ports.diagnose)
    except ModelLoadError as error:
        raise _failed(f"model {load.model!r} on a scratch server: {error}", error.located) from error
    except EndpointError as error:
        raise await _lost(plane, server, f"it loaded model {load.model!r}", load.model, error) from error


async def _ask(plane: ControlPlane, server: ModelServer, target: Target) -> None:
    limit_s = plane.config.load_timeout_s
    try:
        async with asyncio.timeout(limit_s):
            result = await plane.ports.golden.ask(server.endpoint, target)
    except (TimeoutError, EndpointTimeoutError) as error:
        limit = f": {error}" if isinstance(error, EndpointTimeoutError) else f" within {limit_s:g} s"
        reason = f"did not answer its first requests{limit}"
        raise _failed(f"target {target.name!r} on a scratch server {reason}") from error
    except EndpointError as error:
        during = f"target {target.name!r} answered its first requests"
        raise await _lost(plane, server, during, target.model, error) from error
    if result.outcome is GoldenOutcome.WRONG:
        raise _failed(f"target {target.name!r} on a scratch server: {result.reason}")


async def _check_ready(plane: ControlPlane, server: ModelServer, untried: Untried) -> None:
    try:
        loaded = await server.repository.loaded()
    except EndpointError as error:
        during = f"{untried} had been loaded and asked"
        raise await _lost(plane, server, during, next(iter(untried.models)), error) from error
    for load in untried.closures:
        if not loaded.get(load.model, frozenset()).issuperset(load.versions):
            raise _failed(f"model {load.model!r} is not READY any more on a scratch server, soon after it was asked")


async def _lost(
    plane: ControlPlane, server: ModelServer, during: str, model: str, error: EndpointError
) -> PublishError:
    try:
        async with asyncio.timeout(ENDED_S):
            how = await server.wait()
    except TimeoutError:
        how = f"did not answer ({error})"
    return _failed(f"a scratch server {how} while {during}", await located(plane.ports.diagnose, model))


def _failed(reason: str, found: Sequence[str] = ()) -> PublishError:
    return PublishError(STEP, "\n".join((f"{reason}; {REPAIR}", *found)))
