"""Carries decisions out, each within one deadline."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from tidegate.errors import EndpointError, QuarantinedError, SequenceLostError, UnavailableError
from tidegate.gateway.call import Attempt, Call, Outcome
from tidegate.gateway.candidates import candidates, sequence_candidates
from tidegate.gateway.choice import Choice
from tidegate.gateway.config import DispatchConfig
from tidegate.gateway.failures import Failure, Kind, Next, result
from tidegate.gateway.hedging import Hedging, Race, Tried, Trying, answered, decisive, may_hedge
from tidegate.gateway.places import Place, Places
from tidegate.gateway.quarantine import Quarantine
from tidegate.gateway.retry_budget import RetryBudget
from tidegate.gateway.sender import Sender
from tidegate.gateway.server_queues import ServerQueues
from tidegate.gateway.spans import attempt_span, cancelled
from tidegate.gateway.streams import AnswerReader
from tidegate.gateway.watch import Watch
from tidegate.ports import Endpoint, EndpointDirectory, EndpointLoad, Hedge, Suspect, Transport
from tidegate.rules.decision import Decision, Target


def ignore_suspect(_suspect: Suspect) -> None:
    """No-op callback for suspects."""


class Dispatcher:
    """Sends calls to the endpoints of a decision's target, and after failures to the next candidates.

    Candidates are, in order, the endpoints of the target's shards and those of each fallback. The next one is always tried
    if no model has worked on the request: the connection was refused, the place has no room, or Triton says that the model
    is unknown, has no version, is not ready, has a full queue or lost its process. After a time-out or a reset it is tried
    if the retry budget allows; after a reset only once, since the request may have ended the server. After a model's own 500
    the next target is tried. Anything else, including a model's own 4xx, is returned to the caller. If the rule asks for
    hedges, a second endpoint of the target is asked where the first one is slow.

    Health is tracked per endpoint, by health requests of the dispatcher's own, and per model on each endpoint. So is the
    number of requests in flight, whose limit follows what the model sustains.

    Args:
        transport: sends the requests.
        directory: lists the endpoints of each shard.
        config: see `DispatchConfig`.
        clock: seconds that never run backwards.
        suspects: callback for models that fail on an endpoint, called at most once a second for each.
        chance: gives numbers from 0 to 1, which decide between equal endpoints.
    """

    def __init__(
        self,
        transport: Transport,
        directory: EndpointDirectory,
        config: DispatchConfig | None = None,
        clock: Callable[[], float] = time.monotonic,
        suspects: Callable[[Suspect], None] = ignore_suspect,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._directory = directory
        self.config = config = config or DispatchConfig()
        self._clock = clock
        self._places = Places(config, clock)
        self._choice = Choice(self._places, directory, config, clock, chance)
        self._watch = Watch(transport, directory, self._places, config, clock)
        self._queues = ServerQueues(transport, directory, self._places, clock)
        self._quarantine = Quarantine(config.quarantine_s)
        self._sender = Sender(transport, self._watch, self._quarantine, clock, suspects)
        self._hedging = Hedging()
        self._retries = RetryBudget(config.retry_ratio, config.retry_floor_per_s, config.retry_burst, clock())

    @property
    def directory(self) -> EndpointDirectory:
        """The directory that this dispatcher picks endpoints from."""
        return self._directory

    def close(self) -> None:
        """Cancel the health requests."""
        self._watch.close()

    def open_breakers(self) -> int:
        """Count the endpoints, and the models on single endpoints, that get no requests after repeated failures."""
        return self._places.left_alone()

    def loads(self) -> list[EndpointLoad]:
        """Return the state of the endpoints, for operators."""
        return self._choice.loads(time.time())

    async def watch_queues(self, every_s: float) -> None:
        """Ask the servers every `every_s` seconds how long their own queues are, until cancelled."""
        await self._queues.run(every_s)

    def deadline_s(self, decision: Decision, caller_ms: float | None = None, function_ms: float | None = None) -> float:
        """Return the time on this dispatcher's clock by which a decision has to be carried out.

        It is the earliest of the decision's time-out (or the default), the caller's and what the function has left, all in
        milliseconds from now.
        """
        limit_ms = self.config.default_timeout_ms if decision.timeout_ms is None else float(decision.timeout_ms)
        if caller_ms is not None and caller_ms < limit_ms:
            limit_ms = caller_ms
        if function_ms is not None and function_ms < limit_ms:
            limit_ms = function_ms
        return self._clock() + limit_ms / 1000.0

    def time_left_s(self, deadline_s: float) -> float:
        """Return the seconds until a time on this dispatcher's clock."""
        return deadline_s - self._clock()

    def spare_endpoint(self, target: Target) -> Endpoint | None:
        """Return the best endpoint of the first of a target's shards that has room for more than the requests that
        are there or wait; None: no shard has. For copies of requests, which must not hold up any request."""
        now_s = self._clock()
        for shard in target.shards:
            for endpoint in self._choice.ranked(self._directory.endpoints(shard), target.model):
                place = self._places.place(endpoint, target.model)
                if place.admits and place.has_room(now_s) and not place.server.is_congested:
                    return endpoint
        return None

    async def dispatch(self, decision: Decision, call: Call, deadline_s: float) -> Outcome:
        """Carry a decision out by `deadline_s` on this dispatcher's clock.

        If every candidate failed and one answered with 502, 503 or 504 in the protocol's error format, the last such answer
        is the outcome.

        Raises:
            DeadlineError: no target answered in time, or a time-out occurred with no retry left in the budget.
            OverloadedError: no target accepts more requests now.
            QuarantinedError: this request has ended servers.
            SequenceLostError: no server has the state of the call's sequence.
            UnavailableError: every candidate failed, or none is known.
            EndpointAnswerTooLargeError: the answer exceeds the transport's limit.
        """
        if not self._quarantine.is_empty and self._quarantine.refuses(decision.objective, call, self._clock()):
            raise QuarantinedError("this request has ended servers that it was sent to, and is refused for a while")
        plan = self._plan(decision, call)
        if not plan and call.continues:
            raise SequenceLostError(())
        if not plan:
            shards = sorted({shard for target in (decision.target, *decision.fallbacks) for shard in target.shards})
            raise UnavailableError(f"no endpoint is known on any shard of this decision ({', '.join(shards)})")
        self._watch.begin()
        failures: list[Failure] = []
        position, is_last_server = 0, False
        hedges = decision.hedge_after_ms is not None or decision.hedge_at is not None
        while position < len(plan):
            if is_last_server and not await self._is_alive(plan[position], deadline_s):
                # The one retry after a reset must not be wasted on a server that has ended too, as when a shard goes down.
                failures.append(Failure(f"{plan[position].name}: does not answer for its health", Next.FREE))
                position += 1
                continue
            tried: Outcome | Failure | list[Failure]
            if position == 0 and hedges and plan[0].first and may_hedge(call):
                tried = await self._hedged(plan, decision, call, deadline_s)
            else:
                tried = await self._attempt(plan, position, call, deadline_s)
            if isinstance(tried, Outcome):
                return tried.after(_texts(failures), tried.hedge) if failures else tried
            failed = [tried] if isinstance(tried, Failure) else tried
            failures += failed
            failure = decisive(failed)
            position = _position_after(plan, position + len(failed) - 1, failure)
            if failure.next is Next.FREE or failure.next is Next.OTHER_TARGET:
                continue
            if failure.next is Next.STOP or is_last_server:
                break
            if failure.next is Next.ONE_MORE:
                is_last_server = True
                if failure.repeat and position == len(plan):
                    plan.append(plan[-1])
            # Without another candidate, the retry stays in the budget.
            if position == len(plan) or not self._retries.withdraw():
                break
        if call.continues and all(failure.loses_sequence for failure in failures):
            raise SequenceLostError(_texts(failures))
        return result(failures)

    def reader(self, outcome: Outcome, call: Call, deadline_s: float) -> AnswerReader:
        """Return the reader of an outcome's streamed answer.

        A stream is limited by itself, from its first byte; another large answer by the deadline of its request.
        """
        stream, attempt, config = outcome.response.stream, outcome.attempt, self.config
        assert stream is not None
        place = self._place(attempt)

        def ended(error: EndpointError | None) -> None:
            if error is None:
                if not self._quarantine.is_empty:
                    self._quarantine.clear(attempt.objective, call)
            elif self._sender.broken(outcome, place, call, error):
                self._quarantine.strike(attempt.objective, call, attempt.endpoint, self._clock())

        idle_s = config.stream_idle_ms / 1000.0
        if call.stream_above_bytes == 0:
            deadline_s = self._clock() + config.stream_most_ms / 1000.0
        return AnswerReader(stream, self._clock, idle_s, deadline_s, ended)

    async def _is_alive(self, attempt: Attempt, deadline_s: float) -> bool:
        within_s = (deadline_s - self._clock()) * self.config.attempt_share / 2
        return within_s > 0.0 and await self._watch.is_alive(self._place(attempt).server, within_s)

    def _plan(self, decision: Decision, call: Call) -> list[Attempt]:
        """Return the attempts that may be made now, in order; only the first candidate if no place admits requests."""
        self._retries.deposit(self._clock())
        if call.sequence is not None:
            found = sequence_candidates(decision, self._directory, call.sequence)
            if call.continues:
                # Only the server with its state can answer, whatever its place says.
                return found
            return [attempt for attempt in found if self._place(attempt).admits] or found[:1]
        found = candidates(decision, self._directory, self._choice.ranked)
        if len(found) == 1:
            return found
        return [attempt for attempt in found if self._place(attempt).admits] or found[:1]

    def _place(self, attempt: Attempt) -> Place:
        return self._places.place(attempt.endpoint, attempt.target.model)

    async def _hedged(
        self, plan: list[Attempt], decision: Decision, call: Call, deadline_s: float
    ) -> Outcome | list[Failure]:
        """Make the first attempt of a plan, on the decision's own target, and a hedge if it is slow; return the answer, or the
        failure of each."""
        began_s = self._clock()
        after_s = self._hedging.after_s(decision)
        first = self._attempt(plan, 0, call, deadline_s)
        tries: list[Tried | None]
        if after_s is None:
            tries = [await first]
        else:
            tries = await Race(first, partial(self._hedge, plan, call, deadline_s)).run(after_s)
            if len(tries) > 1 and tries[1] is None and plan[1].span is not None:
                # It learns of its cancellation later than the request's span may end.
                cancelled(plan[1].span)
        self._hedging.record(decision, tries[0], self._clock() - began_s)
        failed = [tried for tried in tries if isinstance(tried, Failure)]
        found = answered(tries)
        if found is None:
            return failed
        index, outcome = found
        if len(tries) == 1:
            return outcome
        return outcome.after(_texts(failed), Hedge.WON if index else Hedge.LOST)

    def _hedge(self, plan: list[Attempt], call: Call, deadline_s: float) -> Trying | None:
        """Move the best other endpoint of the first attempt's target to the second place of the plan, and return the attempt on
        it; None: no endpoint has room for a hedge, or the budget none left. A hedge never waits: it would add to an overload."""
        now_s, best, best_place = self._clock(), 0, None
        for position in range(1, len(plan)):
            attempt = plan[position]
            if attempt.target is not plan[0].target or attempt.endpoint == plan[0].endpoint:
                continue
            place = self._place(attempt)
            if not place.admits or place.is_on_trial or not place.has_room(now_s):
                continue
            # The plan is in the order of when it was made; of equals, the earlier is the better one.
            if best_place is None or place.server.outstanding < best_place.server.outstanding:
                best, best_place = position, place
        if best_place is None or not self._retries.withdraw_for_hedge():
            return None
        plan.insert(1, plan.pop(best))
        return self._attempt(plan, 1, call, deadline_s, is_hedge=True)

    async def _attempt(
        self, plan: list[Attempt], position: int, call: Call, deadline_s: float, is_hedge: bool = False
    ) -> Outcome | Failure:
        attempt = plan[position]
        place = self._place(attempt)
        limit_s = deadline_s - self._clock()
        if limit_s <= 0.0:
            return Failure("", Next.STOP, Kind.LATE)
        if position and not place.admits:
            return Failure(f"{attempt.name}: left alone after repeated failures", Next.FREE)
        if position + 1 < len(plan):
            # No attempt follows the time-out of a call that is sent once.
            if self._retries.allows and not call.once:
                limit_s *= self.config.attempt_share
            if place.is_on_trial:
                limit_s = min(limit_s, place.trial_s)
        if call.span is not None:
            attempt.span = attempt_span(call.span, call, attempt, position, is_hedge)
        was_suspected = place.server.is_watched
        tried = await self._sender.send(attempt, place, call, limit_s)
        # A server that was already suspected may have ended before it got this request.
        if isinstance(tried, Outcome) or not tried.ended or was_suspected:
            return tried
        if self._quarantine.strike(attempt.objective, call, attempt.endpoint, self._clock()):
            return replace(tried, next=Next.STOP)
        return tried


def _position_after(plan: Sequence[Attempt], position: int, failure: Failure) -> int:
    """Return the position of the attempt that follows a failed one; the plan's length if none does."""
    if not failure.shuns_model:
        return position + 1
    failed = plan[position].target
    served = (failed.model, failed.version)
    others = (at for at in range(position + 1, len(plan)) if (plan[at].target.model, plan[at].target.version) != served)
    return next(others, len(plan) if failure.next is Next.OTHER_TARGET else position + 1)


def _texts(failures: list[Failure]) -> tuple[str, ...]:
    return tuple([each.text for each in failures])
