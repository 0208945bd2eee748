"""The self-test of a server: whether it still computes, which its own readiness does not show.

A server whose GPU has fallen off the bus says that it and its models are ready, and fails every inference. So live models are
asked their golden requests, from time to time, until one answers correctly. Only a server on which none does has failed: one
broken model must not take away servers that serve the others. A model without a golden request is asked one that is made up:
any answer shows that the server computes, and no answer that it does not, as nothing else can. A model that nothing can be
asked, or that refuses what was made up, shows neither. Nor does a stateful model without an answer: while it has as many
sequences as it can, Triton lets new ones wait, and to reload it would end those that it has.

Each round begins with the next model, so that all are asked in turn. One whose process has ended, or that does not answer, is
reported, whatever the others show of the server.

Where nothing shows either (no model is live, none can be asked, or the store is down) a server that failed stays failed, and
one that was not tested yet passes: missing knowledge must not keep it from its shard.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence

from tidegate.control.plans import Plan, target_of
from tidegate.errors import EndpointError, EndpointTimeoutError, TidegateError
from tidegate.ports import (
    Endpoint,
    GoldenOutcome,
    GoldenRequests,
    GoldenResult,
    ModelLoad,
    SelfTestState,
    Suspect,
    SuspectKind,
)

logger = logging.getLogger(__name__)

MOST_MODELS = 5
"""Models without an answer after which a round ends."""

ROUNDS = 2
"""Consecutive rounds without an answer after which a server that had answered before has failed."""

ROUND_S = 60.0
"""Within this time each model is asked first once, if one request per `SHORTEST_S` is enough for that."""

SHORTEST_S = 0.25
"""The shortest time between two rounds."""

WAIT_S = 0.5
"""Time between two checks whether there is a server to test."""

SEQUENCES = "sequence_batching"
"""The member of a stateful model's config."""


class SelfTest:
    """Tests one server again and again.

    Args:
        live: reads what the server must hold for the live revision.
        endpoint: returns the server's endpoint; None while it is not ready.
        suspects: takes models that do not answer.
    """

    def __init__(
        self,
        live: Callable[[], Awaitable[Plan]],
        golden: GoldenRequests,
        endpoint: Callable[[], Endpoint | None],
        suspects: Callable[[Suspect], None],
        timeout_s: float,
    ) -> None:
        self._live = live
        self._golden = golden
        self._endpoint = endpoint
        self._suspects = suspects
        self._timeout_s = timeout_s
        self._rounds = self._asked = 0
        self._failed_rounds = 0
        self.state = SelfTestState.UNTESTED

    @property
    def passed(self) -> bool:
        """Whether the last test passed; a server that was not tested yet has not passed."""
        return self.state is SelfTestState.PASSED

    async def run(self, interval_s: float) -> None:
        """Test the server while it is ready, and at once when it gets ready, until cancelled. There are at most `interval_s`
        seconds between two rounds, and less where there are many models: see `ROUND_S`."""
        while True:
            endpoint = self._endpoint()
            if endpoint is None:
                self.state = SelfTestState.UNTESTED
                await asyncio.sleep(WAIT_S)
                continue
            await self.round(endpoint)
            rest_s = max(min(interval_s, ROUND_S / max(self._asked, 1)), SHORTEST_S)
            await asyncio.sleep(rest_s if self.passed else WAIT_S)

    async def round(self, endpoint: Endpoint) -> None:
        """Ask live models, one after the other, until one answers."""
        try:
            plan = await self._live()
        except TidegateError as error:
            logger.warning("%s: what is live cannot be read, so it is not tested: %s", endpoint.url, error)
            plan = ()
        failures = []
        # Looked for in the text first: a round of each second parses no config of hundreds of models.
        stateful = {
            load.model
            for load in plan
            if load.config and SEQUENCES in load.config and SEQUENCES in json.loads(load.config)
        }
        for load, version in self._in_turn(plan):
            has_sequences = not stateful.isdisjoint((load.model, *load.steps))
            result = await self._ask(endpoint, load, version, has_sequences=has_sequences)
            if result.self_test is SelfTestState.PASSED:
                self.state, self._failed_rounds = SelfTestState.PASSED, 0
                return
            if result.self_test is SelfTestState.FAILED:
                failures.append(f"{load.model}: {result.reason}")
            if len(failures) == MOST_MODELS:
                break
        if failures and self._endpoint() != endpoint:
            # It has ended, or is ending, and unloads its models: its answers say nothing.
            return
        if self.state is SelfTestState.UNTESTED:
            # Until an answer has shown that the server computes, one round without any is enough.
            self.state, self._failed_rounds = SelfTestState.PASSED, ROUNDS - 1
        if failures:
            self._failed_rounds += 1
            logger.error("%s answers no model as it must: %s", endpoint.url, "; ".join(failures))
        if self._failed_rounds >= ROUNDS:
            self.state = SelfTestState.FAILED

    def _in_turn(self, plan: Plan) -> Sequence[tuple[ModelLoad, int]]:
        """Return the versions of models in the order in which they are asked: each time another one first of those that no
        other model calls, as these use the others too."""
        called = {step for load in plan for step in load.steps}
        every = [(load, version) for load in plan for version in load.versions]
        every.sort(key=lambda each: each[1] != max(each[0].versions))
        first = [each for each in every if each[0].model not in called]
        start = self._rounds % len(first) if first else 0
        self._rounds, self._asked = self._rounds + 1, len(first)
        return [*first[start:], *first[:start], *(each for each in every if each[0].model in called)]

    async def _ask(self, endpoint: Endpoint, load: ModelLoad, version: int, *, has_sequences: bool) -> GoldenResult:
        target = target_of(load.model, version, endpoint.shard)
        try:
            async with asyncio.timeout(self._timeout_s):
                result = await self._golden.ask(endpoint, target)
        except (TimeoutError, EndpointTimeoutError) as error:
            reason = str(error) or f"no answer within {self._timeout_s:g} s"
            if has_sequences:
                return GoldenResult(GoldenOutcome.UNPROVED, SelfTestState.UNTESTED, reason)
            self._suspects(Suspect(endpoint, load.model, SuspectKind.HUNG))
            return GoldenResult(GoldenOutcome.WRONG, SelfTestState.FAILED, reason)
        except EndpointError as error:
            return GoldenResult(GoldenOutcome.WRONG, SelfTestState.FAILED, str(error))
        except TidegateError as error:
            logger.warning("%s: %s cannot be asked: %s", endpoint.url, load.model, error)
            return GoldenResult(GoldenOutcome.UNPROVED, SelfTestState.UNTESTED, str(error))
        if result.ended:
            self._suspects(Suspect(endpoint, load.model, SuspectKind.DEAD_STUB))
        return result
