"""Inspection: whether what is live is stored whole, and answers.

What a process reads once it remembers, and a server that says it is ready may answer nothing, so neither shows by itself
that something was lost. A look at it costs requests, so it is bounded, and remembered for a while.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tidegate.control.config import ControlPorts
from tidegate.control.desired import Desired
from tidegate.errors import BundleError, EndpointError, StoreError, TidegateError
from tidegate.ports import Endpoint, GoldenOutcome, ModelLoad, SelfTestState
from tidegate.rules import Target

EVERY_S = 10.0
"""How long it is remembered that nothing is wrong, in seconds."""

FOUND_S = 2.0
"""How long a finding is cached: a repair must show soon, and asking again costs requests."""

WAIT_S = 1.0
"""How long a status waits for a look; what a longer one finds is in the next status."""

MOST_ASKED = 64
"""How many models are asked in one look; of more, the next look asks the next ones."""

MOST_SHOWN = 8
"""How many of the things that are lost a problem names."""

AT_ONCE = 8
DECLARES_FACTS = re.compile(rb"""key\s*:\s*["']facts["']""")


def unreadable(error: BundleError) -> str:
    """The problem that the live rules are not stored whole."""
    return f"the live rules cannot be read: {error}; publish them again"


def _loads(desired: Desired) -> Iterator[ModelLoad]:
    return itertools.chain.from_iterable(desired.live.values())


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a look found, in words; when, in Unix seconds (None: there was none yet)."""

    problems: tuple[str, ...] = ()
    at: float | None = None


class Inspector:
    """Looks at what is live, at most every `EVERY_S`, or `FOUND_S` where something is wrong."""

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
        """What is wrong with the live revision.

        Args:
            desired: what the fleet must hold.
            targets: the live targets of each server that is ready.
            wait_s: the longest wait for a look; what takes longer is in the next call's.
        """
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
        """Look, and keep what was found, whether or not somebody still waits for it."""
        self._found, self._of = await self._inspect(revision, desired, targets), of
        self._until = self._ports.clock() + (FOUND_S if self._found.problems else EVERY_S)

    async def _inspect(
        self, revision: str, desired: Desired, targets: Mapping[Endpoint, tuple[Target, ...]]
    ) -> Inspection:
        at = self._ports.clock()
        try:
            stored = await self._stored(revision, desired)
        except StoreError as error:
            stored = [f"whether what is live is stored whole is not known: {error}"]
        return Inspection((*stored, *await self._answers(targets)), at)

    async def _stored(self, revision: str, desired: Desired) -> list[str]:
        """What of the live revision is not stored as it should be. Raises `StoreError`."""
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
        needed = {(load.model, version) for load in _loads(desired) for version in (None, *load.versions)}
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
        """What is wrong with the table of facts, where a model looks facts up."""
        configs = await asyncio.gather(*(self._ports.models.read(model, "config.pbtxt") for model in models))
        declared = [model for model, text in zip(models, configs, strict=True) if DECLARES_FACTS.search(text or b"")]
        damage = await self._ports.facts_damage() if declared else ""
        return [f"{damage}; {', '.join(declared)} look facts up there"] if damage else []

    async def _answers(self, targets: Mapping[Endpoint, tuple[Target, ...]]) -> list[str]:
        """The targets that answer nothing, or not what they must."""
        every = [(endpoint, target) for endpoint, found in targets.items() for target in found]
        if len(every) > MOST_ASKED:
            first = self._asked % len(every)
            self._asked += MOST_ASKED
            every = list(itertools.islice(itertools.cycle(every), first, first + MOST_ASKED))
        gate = asyncio.Semaphore(AT_ONCE)

        async def ask(endpoint: Endpoint, target: Target) -> str:
            async with gate:
                return await self._ask(endpoint, target)

        return [text for text in await asyncio.gather(*(ask(*each) for each in every)) if text]

    async def _ask(self, endpoint: Endpoint, target: Target) -> str:
        try:
            # For as long as a publish waits for the answer: what is slow and was let live is not wrong.
            result = await self._ports.golden.ask(endpoint, target)
        except EndpointError as error:
            reason = str(error)
        except TidegateError:
            # Whether it answers is unknown; a store that does not answer is reported elsewhere.
            return ""
        else:
            # A wrong golden request shows nothing of the server, and is to be mended all the same.
            if result.outcome is not GoldenOutcome.WRONG and result.self_test is not SelfTestState.FAILED:
                return ""
            reason = result.reason
        return f"{target.name} on {endpoint.url} of shard {endpoint.shard!r} does not answer as it must: {reason}"
