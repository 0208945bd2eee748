"""A server's self-test: whether it still computes, which its own readiness does not say.

A server whose GPU has fallen off the bus says that it and its models are ready, and fails every inference. So models that are
live are asked their golden requests, from time to time, until one answers as it must. Only a server that none of them answers
on has failed: one broken model must not take servers away that serve the others. A model without a golden request is asked
one that is made up: whatever is in the answer shows that the server computes, and no answer that it does not, since nothing
else can. A model that nothing can be asked, or that refuses what was made up, shows neither.

Where nothing shows either (no model is live, none can be asked, or the store is down) a server that failed stays failed, and
one that was not tested yet passes: what is not known of it must not keep it from its shard.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from tidegate.control.plans import Plan
from tidegate.errors import EndpointError, TidegateError
from tidegate.ports import Endpoint, GoldenOutcome, GoldenRequests, GoldenResult, ModelLoad, SelfTestState
from tidegate.rules import Target

logger = logging.getLogger(__name__)

MOST_MODELS = 5
"""Models without an answer after which a round ends."""

ROUNDS = 2
"""Rounds on end without an answer after which a server that had answered before has failed."""

WAIT_S = 0.5
"""Time between two looks at whether there is a server to test."""


class SelfTest:
    """Tests one server again and again.

    Args:
        live: reads what the server must hold for the live revision.
        golden: asks a model.
        endpoint: where the server is; None while it is not ready.
    """

    def __init__(
        self,
        live: Callable[[], Awaitable[Plan]],
        golden: GoldenRequests,
        endpoint: Callable[[], Endpoint | None],
    ) -> None:
        self._live = live
        self._golden = golden
        self._endpoint = endpoint
        self._failed_rounds = 0
        self.state = SelfTestState.UNTESTED

    @property
    def passed(self) -> bool:
        """Whether the server computes, as far as is known; a server that was not tested yet has not passed."""
        return self.state is SelfTestState.PASSED

    async def run(self, interval_s: float) -> None:
        """Test the server every `interval_s` while it is ready, and at once when it gets ready; until cancelled."""
        while True:
            endpoint = self._endpoint()
            if endpoint is None:
                self.state = SelfTestState.UNTESTED
                await asyncio.sleep(WAIT_S)
                continue
            await self.round(endpoint)
            await asyncio.sleep(interval_s if self.passed else WAIT_S)

    async def round(self, endpoint: Endpoint) -> None:
        """Ask live models, one after the other, until one answers."""
        try:
            plan = await self._live()
        except TidegateError as error:
            logger.warning("%s: what is live cannot be read, so it is not tested: %s", endpoint.url, error)
            plan = ()
        failures = []
        for load in _by_callers(plan):
            result = await self._ask(endpoint, load)
            if result.self_test is SelfTestState.PASSED:
                self.state, self._failed_rounds = SelfTestState.PASSED, 0
                return
            if result.self_test is SelfTestState.FAILED:
                failures.append(f"{load.model}: {result.reason}")
            if len(failures) == MOST_MODELS:
                break
        if self.state is SelfTestState.UNTESTED:
            # Until an answer has shown that the server computes, one round without any is enough.
            self.state, self._failed_rounds = SelfTestState.PASSED, ROUNDS - 1
        if failures:
            self._failed_rounds += 1
            logger.error("%s answers no model as it must: %s", endpoint.url, "; ".join(failures))
        if self._failed_rounds >= ROUNDS:
            self.state = SelfTestState.FAILED

    async def _ask(self, endpoint: Endpoint, load: ModelLoad) -> GoldenResult:
        version = max(load.versions, default=None)
        name = load.model if version is None else f"{load.model}/{version}"
        try:
            return await self._golden.ask(endpoint, Target(name, load.model, version, (endpoint.shard,)))
        except EndpointError as error:
            return GoldenResult(GoldenOutcome.WRONG, SelfTestState.FAILED, str(error))
        except TidegateError as error:
            logger.warning("%s: %s cannot be asked: %s", endpoint.url, load.model, error)
            return GoldenResult(GoldenOutcome.UNPROVED, SelfTestState.UNTESTED, str(error))


def _by_callers(plan: Plan) -> list[ModelLoad]:
    """The models of a plan in the order in which they are asked: those that no other one calls first, since they use the
    others too."""
    called = {step for load in plan for step in load.steps}
    return sorted(plan, key=lambda load: load.model in called)
