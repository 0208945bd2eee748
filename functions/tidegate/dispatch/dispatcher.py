"""Carries a decision out within one deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from tidegate.dispatch.call import Attempt, Call, Outcome
from tidegate.dispatch.candidates import candidates, sticky_candidate
from tidegate.dispatch.config import DispatchConfig
from tidegate.dispatch.failures import Failure, Kind, Next, result
from tidegate.dispatch.places import Place, Places
from tidegate.dispatch.quarantine import Quarantine
from tidegate.dispatch.retry_budget import RetryBudget
from tidegate.dispatch.verdict import Verdict, error_text, judge, with_callers_status
from tidegate.dispatch.watch import Watch
from tidegate.errors import (
    EndpointAnswerTooLargeError,
    EndpointBusyError,
    EndpointError,
    EndpointRefusedError,
    EndpointResetError,
    EndpointTimeoutError,
    QuarantinedError,
    UnavailableError,
)
from tidegate.ports import (
    Endpoint,
    EndpointDirectory,
    HttpRequest,
    Suspect,
    SuspectKind,
    Transport,
    ended_stub,
)
from tidegate.rules.decision import Decision

_SUSPECT_EVERY_S = 1.0


def ignore_suspect(_suspect: Suspect) -> None:
    """No-op receiver of suspects."""


class Dispatcher:
    """Sends calls to the endpoints of a decision's target, and on failure to the next that can serve it.

    Candidates, in order: the endpoints of the target's shards, then those of each fallback. The next one is tried freely
    where no model has worked on the request: the connection was refused, the place has no room, Triton says that the model
    is unknown, has no version, is not ready, has a full queue or lost its process. After a time-out or a reset it is tried
    if a retry is in the budget; after a reset once only, as the request may be what ended the server. Everything else, a
    model's own 4xx and 500 included, is the caller's answer.

    Health is kept per endpoint, by health requests of the dispatcher's own, and per model on each endpoint. So is the
    number of requests under way, which follows what the model sustains.

    Args:
        transport: sends the bytes.
        directory: knows the endpoints of each shard.
        config: see `DispatchConfig`.
        clock: seconds that never run backwards.
        suspects: callback for models that callers cannot use on an endpoint, at most once a second for each.
    """

    def __init__(
        self,
        transport: Transport,
        directory: EndpointDirectory,
        config: DispatchConfig | None = None,
        clock: Callable[[], float] = time.monotonic,
        suspects: Callable[[Suspect], None] = ignore_suspect,
    ) -> None:
        self._transport = transport
        self._directory = directory
        self._config = config = config or DispatchConfig()
        self._clock = clock
        self._suspects = suspects
        self._places = Places(config, clock)
        self._watch = Watch(transport, directory, self._places, config, clock)
        self._quarantine = Quarantine(config.quarantine_s)
        self._turn = 0
        self._retries = RetryBudget(config.retry_ratio, config.retry_floor_per_s, config.retry_burst, clock())

    @property
    def directory(self) -> EndpointDirectory:
        """The directory that this dispatcher picks endpoints from."""
        return self._directory

    def close(self) -> None:
        """End what goes on beside requests."""
        self._watch.close()

    def open_breakers(self) -> int:
        """How many endpoints, and models on single endpoints, are being left alone now, after repeated failures."""
        return self._places.left_alone()

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
            OverloadedError: no target takes more requests now.
            QuarantinedError: this request has ended servers.
            UnavailableError: every candidate failed, or none is known.
            EndpointAnswerTooLargeError: the answer is larger than is passed on.
        """
        if not self._quarantine.is_empty and self._quarantine.refuses(decision.objective, call, self._clock()):
            raise QuarantinedError("this request has ended servers that it was sent to, and is refused for a while")
        plan = self._plan(decision, call)
        if not plan:
            shards = sorted({shard for target in (decision.target, *decision.fallbacks) for shard in target.shards})
            raise UnavailableError(f"no endpoint is known on any shard of this decision ({', '.join(shards)})")
        self._watch.begin()
        failures: list[Failure] = []
        position, is_last_server = 0, False
        while position < len(plan):
            if is_last_server and not await self._is_alive(plan[position], deadline_s):
                # The one that is left must not be wasted on a server that has ended too, as when a whole shard ends.
                failures.append(Failure(f"{_name(plan[position])}: does not answer for its health", Next.FREE))
                position += 1
                continue
            tried = await self._attempt(plan, position, call, deadline_s, failures)
            if isinstance(tried, Outcome):
                return tried
            position += 1
            failures.append(tried)
            if tried.next is Next.FREE:
                continue
            if tried.next is Next.STOP or is_last_server:
                break
            if tried.next is Next.ONE_MORE:
                is_last_server = True
                if tried.repeat and position == len(plan):
                    plan.append(plan[-1])
            # Where no other attempt can follow, a retry stays in the budget.
            if position == len(plan) or not self._retries.withdraw():
                break
        return result(failures)

    async def _is_alive(self, attempt: Attempt, deadline_s: float) -> bool:
        within_s = (deadline_s - self._clock()) * self._config.attempt_share / 2
        return within_s > 0.0 and await self._watch.is_alive(self._place(attempt).server, within_s)

    def _plan(self, decision: Decision, call: Call) -> list[Attempt]:
        """The attempts that may be made now, in order; the first candidate alone where every place is left alone."""
        self._retries.deposit(self._clock())
        if call.sequence_id is not None:
            sticky = sticky_candidate(decision, self._directory, call.sequence_id)
            return [] if sticky is None else [sticky]
        self._turn += 1
        found = candidates(decision, self._directory, self._load, self._turn)
        return [attempt for attempt in found if self._place(attempt).admits] or found[:1]

    def _load(self, endpoint: Endpoint) -> int:
        return self._places.server(endpoint).outstanding

    def _place(self, attempt: Attempt) -> Place:
        return self._places.place(attempt.endpoint, attempt.target.model)

    async def _attempt(
        self, plan: list[Attempt], position: int, call: Call, deadline_s: float, failures: list[Failure]
    ) -> Outcome | Failure:
        attempt = plan[position]
        place = self._place(attempt)
        limit_s = deadline_s - self._clock()
        if limit_s <= 0.0:
            return Failure("", Next.STOP, Kind.LATE)
        if position and not place.admits:
            return Failure(f"{_name(attempt)}: left alone after repeated failures", Next.FREE)
        if position + 1 < len(plan):
            if self._retries.allows:
                limit_s *= self._config.attempt_share
            if place.is_on_trial:
                limit_s = min(limit_s, place.trial_s)
        was_ill = place.server.is_watched
        tried = await self._tried(attempt, place, call, limit_s, failures)
        # What was sent to a server that was ill already has not ended it.
        if isinstance(tried, Outcome) or not tried.ended or was_ill:
            return tried
        if self._quarantine.strike(attempt.objective, call, attempt.endpoint, self._clock()):
            return replace(tried, next=Next.STOP)
        return tried

    async def _tried(
        self, attempt: Attempt, place: Place, call: Call, limit_s: float, failures: list[Failure]
    ) -> Outcome | Failure:
        try:
            now_s = self._clock()
            if place.has_room(now_s):
                place.enter(now_s)
            else:
                await place.wait(call.flow, limit_s, now_s)
                # The model is not to blame for the time in the queue.
                limit_s -= self._clock() - now_s
            return await self._send(attempt, place, call, limit_s, failures)
        except EndpointAnswerTooLargeError:
            raise
        except EndpointError as error:
            return self._failed(attempt, place, call, limit_s, error)

    async def _send(
        self, attempt: Attempt, place: Place, call: Call, limit_s: float, failures: list[Failure]
    ) -> Outcome | Failure:
        """Send a call to a place that it has entered, and judge the answer."""
        clock = self._clock
        started_s = clock()
        in_flight = place.in_flight
        response = await self._transport.send(
            attempt.endpoint,
            HttpRequest(
                call.method,
                call.path_for(attempt.target, attempt.first),
                call.headers,
                call.body,
                True,  # the dispatcher decides what is sent again
                call.rest,
                call.rest_bytes,
            ),
            limit_s,
            lambda took_s: place.leave(took_s if call.infers else None, in_flight, clock()),
        )
        outcome = Outcome(
            response, attempt, (clock() - started_s) * 1000.0, tuple(each.text for each in failures) if failures else ()
        )
        return (
            outcome
            if response.status < 400 and self._answered(attempt, place, call)
            else self._judged(outcome, place, call)
        )

    def _answered(self, attempt: Attempt, place: Place, call: Call) -> bool:
        if call.infers:
            place.succeeded()
        if not self._quarantine.is_empty:
            self._quarantine.clear(attempt.objective, call)
        return True

    def _judged(self, outcome: Outcome, place: Place, call: Call) -> Outcome | Failure:
        """The caller's answer, or the failure that an error of the endpoint stands for."""
        response, attempt = outcome.response, outcome.attempt
        if ended_stub(response.status, response.body) is not None:
            return self._dead_stub(attempt, place, call)
        if response.status >= 500:
            response = with_callers_status(response)
            outcome = outcome.with_response(response)
        verdict = Verdict.ANSWER if call.final else judge(response, attempt.target.model)
        if verdict is Verdict.ANSWER:
            self._answered(attempt, place, call)
            return outcome
        text = f"{_name(attempt)}: {verdict.value} ({response.status})"
        if verdict is Verdict.NOT_SERVED:
            return Failure(text, self._unless_once(call, Next.FREE))
        return self._unavailable(text, outcome, place, call)

    def _unavailable(self, text: str, outcome: Outcome, place: Place, call: Call) -> Failure:
        """A 502, 503 or 504: in the protocol's form the model's own, else of what stands before the server."""
        status = outcome.response.status
        if error_text(outcome.response) is not None:
            # Such as a full queue: a sign of load, which says nothing of health.
            place.limit.shrink(self._clock())
            after = Next.FREE if status == 503 else Next.RATIONED
            return Failure(text, self._unless_once(call, after), outcome=outcome)
        self._watch.suspect(place.server)
        self._note_failure(place, call)
        if status == 502:
            # Behind a load balancer the next server is at the same address.
            return self._ended(text, call, repeat=True)
        return Failure(text, self._unless_once(call, Next.FREE if status == 503 else Next.RATIONED))

    def _dead_stub(self, attempt: Attempt, place: Place, call: Call) -> Failure:
        """The process of a Python model has ended: with this request, if nobody has met it dead before."""
        was_known, place.has_dead_stub = place.has_dead_stub, True
        self._note_failure(place, call, SuspectKind.DEAD_STUB, at_once=True)
        text = f"{_name(attempt)}: the model's process has ended"
        if was_known:
            return Failure(text, self._unless_once(call, Next.FREE))
        return self._ended(text, call)

    def _ended(self, text: str, call: Call, *, repeat: bool = False) -> Failure:
        """A server, or a model's process, ended while it had this request."""
        return Failure(text, self._unless_once(call, Next.ONE_MORE), repeat=repeat, ended=True)

    def _failed(self, attempt: Attempt, place: Place, call: Call, limit_s: float, error: EndpointError) -> Failure:
        text = f"{_name(attempt)}: {error}"
        match error:
            case EndpointBusyError():
                return Failure(text, Next.STOP if error.sent else Next.FREE, Kind.BUSY)
            case EndpointRefusedError():
                self._watch.refused(place.server)
                return Failure(text, Next.FREE)
            case EndpointResetError():
                self._watch.suspect(place.server)
                self._note_failure(place, call)
                return self._ended(text, call, repeat=error.stale)
            case EndpointTimeoutError() if error.sent:
                if call.infers and place.had_its_time(limit_s):
                    self._watch.suspect(place.server)
                    place.limit.shrink(self._clock())
                    self._note_failure(place, call, SuspectKind.HUNG)
                return Failure(text, self._unless_once(call, Next.RATIONED), Kind.LATE)
            case _:
                self._watch.suspect(place.server)
                return Failure(text, Next.FREE)

    def _note_failure(
        self, place: Place, call: Call, kind: SuspectKind | None = None, *, at_once: bool = False
    ) -> None:
        """Count a failure of a model; where its breaker opens, see to it that it closes again, and report it."""
        if not call.infers:
            return
        wait_s = place.failed(at_once=at_once)
        if wait_s is not None:
            self._watch.reopen(place, wait_s)
        if kind is None or not (at_once or place.is_open):
            return
        now_s = self._clock()
        if now_s - place.reported_at_s >= _SUSPECT_EVERY_S:
            place.reported_at_s = now_s
            self._suspects(Suspect(place.server.endpoint, place.model, kind))

    @staticmethod
    def _unless_once(call: Call, following: Next) -> Next:
        return Next.STOP if call.once else following


def _name(attempt: Attempt) -> str:
    return f"{attempt.target.name} on {attempt.shard}"
