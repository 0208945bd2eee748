"""Inspection: whether what is live is stored whole, and answers.

A process caches what it reads, and a server that says it is ready may answer nothing, so neither shows by itself that
something was lost. A look costs requests, so it is bounded, and its result is cached.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass

from tidegate.control.config import ControlPorts
from tidegate.control.desired import Desired
from tidegate.errors import BundleError, EndpointError, StoreError, TidegateError
from tidegate.model_layout import CONFIG
from tidegate.ports import Endpoint, GoldenOutcome, SelfTestState
from tidegate.rules import Target

EVERY_S = 10.0
"""How long a result without problems is cached."""

FOUND_S = 2.0
"""How long a finding is cached: a repair must show soon, and asking again costs requests."""

WAIT_S = 1.0
"""How long a status waits for an inspection; the result of a longer one is in the next status."""

MOST_ASKED = 64
"""Most models that are asked in one inspection; the next one asks the others."""

MOST_SHOWN = 8
"""Most lost units that a problem names."""

AT_ONCE = 8
DECLARES_FACTS = re.compile(rb"""key\s*:\s*["']facts["']""")


def unreadable(error: BundleError) -> str:
    return f"the live rules cannot be read: {error}; publish them again"


@dataclass(frozen=True, slots=True)
class Inspection:
    """Result of an inspection, and its time in Unix seconds; None: there was none yet."""

    problems: tuple[str, ...] = ()
    at: float | None = None


class Inspector:
    """Inspects what is live, at most every `EVERY_S`, or every `FOUND_S` while it finds problems."""

    def __init__(self, ports: ControlPorts) -> None:
        self._ports = ports
        self._found = Inspection()
        self._of: object = None
        self._until = 0.0
        self._asked = 0
        self._look: asyncio.Task[None] | None = None
        self._looks_at: object = None

    async def look(
        self, desired: Desired, targets: Mapping[Endpoint, tuple[Target, ...]], wait_s: float = WAIT_S
    ) -> Inspection:
        """Find what is wrong with the live revision, of which `targets` has the targets of each server that is ready. A look that
        takes longer than `wait_s` is in the next call's answer."""
        if desired.known is None:
            return Inspection()
        revision = desired.known.live.revision
        of = (revision, frozenset(targets))
        if of == self._of and self._ports.clock() < self._until:
            return self._found
        look = self._look
        if look is None or look.done() or of != self._looks_at:
            if look is not None:
                # What it would find is of something else.
                look.cancel()
            self._look = look = asyncio.create_task(self._remember(of, revision, desired, targets))
            self._looks_at = of
        await asyncio.wait([look], timeout=wait_s)
        if look.done() and not look.cancelled():
            look.result()
        return self._found if of == self._of else Inspection()

    async def _remember(
        self, of: object, revision: str, desired: Desired, targets: Mapping[Endpoint, tuple[Target, ...]]
    ) -> None:
        """Look, and keep what was found, also after the caller has stopped waiting."""
        at = self._ports.clock()
        try:
            stored = await self._stored(revision, desired)
        except StoreError as error:
            stored = [f"whether what is live is stored whole is not known: {error}"]
        self._found, self._of = Inspection((*stored, *await self._answers(targets)), at), of
        self._until = self._ports.clock() + (FOUND_S if self._found.problems else EVERY_S)

    async def _stored(self, revision: str, desired: Desired) -> list[str]:
        problems = []
        try:
            await self._ports.bundles.bundle(revision)
        except BundleError as error:
            problems.append(unreadable(error))
        try:
            await self._ports.bundles.assignment(revision)
        except BundleError as error:
            if desired.live:
                problems.append(f"what the live rules load is remembered here, and lost: {error}; publish them again")
        needed = {
            (load.model, version)
            for plan in desired.live.values()
            for load in plan
            for version in (None, *load.versions)
        }
        damage = await self._ports.models.damage(needed)
        if damage:
            shown = ", ".join(damage[:MOST_SHOWN]) + (
                f" and {len(damage) - MOST_SHOWN} more" if damage[MOST_SHOWN:] else ""
            )
            problems.append(
                f"models that are live are not stored as they were pushed: {shown}; servers that hold them go on, and one "
                "that starts cannot load them; push them again with `tidegate models push`"
            )
        there = await self._ports.models.models()
        models = sorted({model for model, version in needed if version in there.get(model, ())})
        return [*problems, *await self._facts(models)]

    async def _facts(self, models: list[str]) -> list[str]:
        configs = await asyncio.gather(*(self._ports.models.read(model, CONFIG) for model in models))
        declared = [model for model, text in zip(models, configs, strict=True) if DECLARES_FACTS.search(text or b"")]
        damage = await self._ports.facts_damage() if declared and self._ports.facts_damage else None
        return [f"{damage}; {', '.join(declared)} look facts up there"] if damage else []

    async def _answers(self, targets: Mapping[Endpoint, tuple[Target, ...]]) -> list[str]:
        every = [(endpoint, target) for endpoint, found in targets.items() for target in found]
        if len(every) > MOST_ASKED:
            first = self._asked % len(every)
            self._asked += MOST_ASKED
            every = list(itertools.islice(itertools.cycle(every), first, first + MOST_ASKED))
        gate = asyncio.Semaphore(AT_ONCE)

        async def ask(endpoint: Endpoint, target: Target) -> str | None:
            async with gate:
                return await self._ask(endpoint, target)

        return [text for text in await asyncio.gather(*(ask(*each) for each in every)) if text is not None]

    async def _ask(self, endpoint: Endpoint, target: Target) -> str | None:
        """Say what is wrong with the answers of a target; None where nothing is known to be."""
        try:
            # As long as a publish waits for the answer: a slow model that may go live is not a problem later.
            result = await self._ports.golden.ask(endpoint, target)
        except EndpointError as error:
            reason = str(error)
        except TidegateError:
            # Whether it answers is unknown; a store that does not answer is reported elsewhere.
            return None
        else:
            # A wrong golden request shows nothing of the server, and must be corrected all the same.
            if result.outcome is not GoldenOutcome.WRONG and result.self_test is not SelfTestState.FAILED:
                return None
            reason = result.reason
        return f"{target.name} on {endpoint} does not answer as it must: {reason}"
