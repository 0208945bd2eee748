"""Carries a decision out within one deadline."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tidegate.dispatch.breaker import Breaker
from tidegate.dispatch.call import Attempt, Call, Outcome
from tidegate.dispatch.candidates import candidates, sticky_candidate
from tidegate.dispatch.retry_budget import RetryBudget
from tidegate.dispatch.verdict import Verdict, error_text, judge, with_callers_status
from tidegate.errors import DeadlineError, EndpointError, EndpointTimeoutError, UnavailableError
from tidegate.ports import Endpoint, EndpointDirectory, HttpRequest, HttpResponse, Transport
from tidegate.rules.decision import Decision

_MOST_BREAKERS = 4096


@dataclass(frozen=True, slots=True)
class DispatchConfig:
    """How a dispatcher behaves.

    Attributes:
        default_timeout_ms: the deadline of a decision that names none (> 0).
        attempt_share: the share of the time left that an attempt may use while another candidate stands after it and
            a retry is in the budget (0–1). A time-out can only be followed by another attempt because the first does
            not get all the time: with 0.5, a rule's `timeout_ms` must be twice what its model needs.
        retry_ratio: retries after a time-out, as a share of the requests (0–1). Only these are rationed: a time-out is
            what overload looks like, and repeating it multiplies the load. Other retries cost no model any work.
        retry_floor_per_s: retries after a time-out that accrue every second whatever the traffic (at least 0).
        retry_burst: how many unused retries are kept at most (at least 1).
        breaker_failures: consecutive failures of an endpoint that open its breaker (at least 1).
        breaker_open_ms: how long an open breaker waits before it lets a probe through (> 0).
        breaker_min_wait_ms: a time-out counts against the endpoint only if the attempt was given at least this long,
            so that a caller with an impossible deadline cannot take an endpoint away from the others (at least 0).
    """

    default_timeout_ms: float = 10_000.0
    attempt_share: float = 0.5
    retry_ratio: float = 0.2
    retry_floor_per_s: float = 1.0
    retry_burst: float = 10.0
    breaker_failures: int = 5
    breaker_open_ms: float = 1_000.0
    breaker_min_wait_ms: float = 20.0


class Dispatcher:
    """Sends calls to the endpoints of a decision's target, and on failure to the next that can serve it.

    Candidates, in order: the endpoints of the target's shards, then those of each fallback. The next one is tried
    after exactly these: the connection was refused or reset; 502, 503 or 504; Triton's own answer that the model is
    unknown, has no version or is not ready; a time-out with deadline left and a retry in the budget. Everything else,
    a model's own 4xx and 500 included, is the caller's answer.

    Args:
        transport: sends the bytes.
        directory: knows the endpoints of each shard.
        config: see `DispatchConfig`.
        clock: seconds that never run backwards.
    """

    def __init__(
        self,
        transport: Transport,
        directory: EndpointDirectory,
        config: DispatchConfig | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self._directory = directory
        self._config = config = config or DispatchConfig()
        self._clock = clock
        self._breakers: dict[Endpoint, Breaker] = {}
        self._turn = 0
        self._retries = RetryBudget(config.retry_ratio, config.retry_floor_per_s, config.retry_burst, clock())

    @property
    def directory(self) -> EndpointDirectory:
        """The directory that this dispatcher picks endpoints from."""
        return self._directory

    def open_breakers(self) -> int:
        """How many endpoints are being left alone now, after repeated failures."""
        return sum(breaker.is_open for breaker in self._breakers.values())

    def deadline_s(self, decision: Decision, caller_ms: float | None = None, function_ms: float | None = None) -> float:
        """The moment, on this dispatcher's clock, by which a decision has to be carried out.

        It is the earliest of what the decision allows (or the default), what the caller asked for and what the
        function has left, all in milliseconds from now.
        """
        limit_ms = self._config.default_timeout_ms if decision.timeout_ms is None else float(decision.timeout_ms)
        if caller_ms is not None and caller_ms < limit_ms:
            limit_ms = caller_ms
        if function_ms is not None and function_ms < limit_ms:
            limit_ms = function_ms
        return self._clock() + limit_ms / 1000.0

    async def dispatch(self, decision: Decision, call: Call, deadline_s: float) -> Outcome:
        """Carry a decision out by the moment `deadline_s` on this dispatcher's clock.

        When every candidate failed and the last one that answered said 502, 503 or 504 in the protocol's own error
        form, that answer is the outcome.

        Raises:
            DeadlineError: no target answered in time, or a time-out found no retry left in the budget.
            UnavailableError: every candidate failed, or none is known.
        """
        plan = self._plan(decision, call)
        if not plan:
            shards = sorted({shard for target in (decision.target, *decision.fallbacks) for shard in target.shards})
            raise UnavailableError(f"no endpoint is known on any shard of this decision ({', '.join(shards)})")
        failures: list[str] = []
        answer: Outcome | None = None
        timed_out = False
        for position, attempt in enumerate(plan):
            started_s = self._clock()
            limit_s = deadline_s - started_s
            if limit_s <= 0.0:
                timed_out = True
                break
            breaker = self._breaker(attempt.endpoint)
            if position and not breaker.would_admit(started_s):
                failures.append(f"{_place(attempt)}: left alone after repeated failures")
                continue
            if position + 1 < len(plan) and self._retries.allows:
                limit_s *= self._config.attempt_share
            result = await self._try(attempt, breaker, call, limit_s)
            if isinstance(result, EndpointError):
                failures.append(f"{_place(attempt)}: {result}")
                timed_out = isinstance(result, EndpointTimeoutError)
                if timed_out and not self._retries.withdraw():
                    break
                continue
            response, verdict = result
            triton_ms = (self._clock() - started_s) * 1000.0
            outcome = Outcome(response, attempt, triton_ms, tuple(failures))
            if verdict is Verdict.ANSWER:
                return outcome
            timed_out = False
            failures.append(f"{_place(attempt)}: {verdict.value} ({response.status})")
            if verdict is Verdict.GATEWAY_FAILURE and error_text(response) is not None:
                answer = outcome
        if answer is not None:
            return answer
        if timed_out:
            raise DeadlineError("no target answered before the deadline", tuple(failures))
        raise UnavailableError("every target failed", tuple(failures))

    def _plan(self, decision: Decision, call: Call) -> Sequence[Attempt]:
        """The attempts that may be made now, in order; the first candidate alone when every breaker is open."""
        now_s = self._clock()
        self._retries.deposit(now_s)
        if call.sequence_id is not None:
            sticky = sticky_candidate(decision, self._directory, call.sequence_id)
            return () if sticky is None else (sticky,)
        self._turn += 1
        found = candidates(decision, self._directory, self._breaker, self._turn)
        return [attempt for attempt in found if self._breaker(attempt.endpoint).would_admit(now_s)] or found[:1]

    async def _try(
        self, attempt: Attempt, breaker: Breaker, call: Call, limit_s: float
    ) -> tuple[HttpResponse, Verdict] | EndpointError:
        once = call.sequence_id is not None
        request = HttpRequest(call.method, call.path_for(attempt.target, attempt.first), call.headers, call.body, once)
        healthy: bool | None = None
        breaker.enter()
        try:
            response = await self._transport.send(attempt.endpoint, request, limit_s)
            if response.status >= 500:
                response = with_callers_status(response)
            verdict = Verdict.ANSWER if call.final else judge(response, attempt.target.model)
            healthy = verdict is not Verdict.GATEWAY_FAILURE
        except EndpointTimeoutError as error:
            healthy = None if limit_s * 1000.0 < self._config.breaker_min_wait_ms else False
            return error
        except EndpointError as error:
            healthy = False
            return error
        else:
            return response, verdict
        finally:
            breaker.leave(self._clock(), healthy)

    def _breaker(self, endpoint: Endpoint) -> Breaker:
        breaker = self._breakers.get(endpoint)
        if breaker is None:
            if len(self._breakers) >= _MOST_BREAKERS:
                self._breakers = {at: kept for at, kept in self._breakers.items() if kept.outstanding}
            breaker = Breaker(self._config.breaker_failures, self._config.breaker_open_ms / 1000.0)
            self._breakers[endpoint] = breaker
        return breaker


def _place(attempt: Attempt) -> str:
    return f"{attempt.target.name} on {attempt.shard}"
