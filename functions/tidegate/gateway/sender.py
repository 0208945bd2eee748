"""Sends one attempt of a call to its place, and classifies the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from tidegate.errors import (
    EndpointAnswerError,
    EndpointAnswerTooLargeError,
    EndpointBusyError,
    EndpointError,
    EndpointRefusedError,
    EndpointResetError,
    EndpointStubEndedError,
    EndpointTimeoutError,
)
from tidegate.gateway.call import Attempt, Call, Outcome
from tidegate.gateway.failures import Failure, Kind, Next
from tidegate.gateway.places import Place
from tidegate.gateway.quarantine import Quarantine
from tidegate.gateway.spans import answered, end_with
from tidegate.gateway.verdict import Verdict, generated, judge, with_callers_status
from tidegate.gateway.watch import Watch
from tidegate.oip.error_texts import ended_stub, error_text
from tidegate.ports import Suspect, SuspectKind, Transport

_SUSPECT_EVERY_S: Final = 1.0


class Sender:
    """Makes single attempts, and records what each says about the health of its place.

    Args:
        transport: sends the requests.
        watch: examines the endpoints whose attempts fail.
        quarantine: records the requests that were answered.
        clock: seconds that never run backwards.
        suspects: callback for models that fail on an endpoint, called at most once a second for each.
    """

    def __init__(
        self,
        transport: Transport,
        watch: Watch,
        quarantine: Quarantine,
        clock: Callable[[], float],
        suspects: Callable[[Suspect], None],
    ) -> None:
        self._transport = transport
        self._watch = watch
        self._quarantine = quarantine
        self._clock = clock
        self._suspects = suspects

    async def send(self, attempt: Attempt, place: Place, call: Call, limit_s: float) -> Outcome | Failure:
        """Send a call to a place once it has room there, and return the answer, or the failure that it is a sign of.

        Raises:
            EndpointAnswerTooLargeError: the answer exceeds the transport's limit.
        """
        clock = self._clock
        started_s = clock()
        stay: _Stay | None = None
        span = attempt.span
        try:
            if place.takes(limit_s, started_s):
                place.enter(started_s)
            else:
                await place.wait(call.flow, limit_s, clock)
                # Time in the queue does not count against the model.
                waited_s = clock() - started_s
                limit_s -= waited_s
                started_s += waited_s
            stay = _Stay(place, call.infers, clock)
            response = await self._transport.send(attempt.endpoint, call.request(attempt), limit_s, stay.done)
            stay.returned()
        except BaseException as error:
            if stay is not None:
                stay.raised(error, clock() - started_s)
            if span is not None:
                end_with(span, error)
            if isinstance(error, EndpointError) and not isinstance(error, EndpointAnswerTooLargeError):
                return self._failed(attempt, place, call, limit_s, error)
            raise
        if call.generates:
            response = generated(response)
        if span is not None:
            answered(span, response, call.appended is not None)
        outcome = Outcome(response, attempt, (clock() - started_s) * 1000.0)
        if response.status >= 400:
            return self._judged(outcome, place, call)
        self._answered(outcome, place, call)
        return outcome

    def broken(self, outcome: Outcome, place: Place, call: Call, error: EndpointError) -> bool:
        """Note that a streamed answer broke off; return whether the request may have ended its server or model."""
        was_suspected = place.server.is_watched
        if isinstance(error, EndpointStubEndedError):
            return self._dead_stub(outcome.attempt, place, call).ended
        if isinstance(error, (EndpointBusyError, EndpointAnswerTooLargeError)):
            # A limit of this side, which says nothing about the server.
            return False
        if isinstance(error, EndpointAnswerError):
            # As a model that raises does: the place is healthy, and the request may be to blame.
            place.standing.failed()
            return False
        self._watch.suspect(place.server)
        self._note_failure(place, call, SuspectKind.HUNG if isinstance(error, EndpointTimeoutError) else None)
        return isinstance(error, EndpointResetError) and not was_suspected

    def _answered(self, outcome: Outcome, place: Place, call: Call) -> None:
        if call.infers:
            place.succeeded()
        # A request whose answer is streamed may still end its server.
        if not self._quarantine.is_empty and outcome.response.stream is None:
            self._quarantine.clear(outcome.attempt.objective, call)

    def _judged(self, outcome: Outcome, place: Place, call: Call) -> Outcome | Failure:
        """Return the outcome of an error answer, or the failure that it is a sign of."""
        response, attempt = outcome.response, outcome.attempt
        if ended_stub(response.status, response.body) is not None:
            return self._dead_stub(attempt, place, call)
        if response.status >= 500:
            response = with_callers_status(response)
            outcome = Outcome(response, attempt, outcome.triton_ms)
        verdict = Verdict.ANSWER if call.final else judge(response, attempt.target.model)
        if verdict is Verdict.ANSWER or (verdict is Verdict.MODEL_FAILED and not call.infers):
            self._answered(outcome, place, call)
            return outcome
        text = f"{attempt.name}: {verdict.value} ({response.status})"
        if verdict is Verdict.MODEL_FAILED:
            # A model that raises does so on every server. Its place is healthy: the request may be to blame.
            self._answered(outcome, place, call)
            place.standing.failed()
            return Failure(text, self._unless_once(call, Next.OTHER_TARGET), outcome=outcome, shuns_model=True)
        if verdict is Verdict.NO_SEQUENCE:
            if not call.continues:
                return outcome
            return Failure(text, Next.FREE, loses_sequence=True)
        if verdict is Verdict.NOT_SERVED:
            return Failure(
                text, Next.FREE if call.continues else self._unless_once(call, Next.FREE), loses_sequence=True
            )
        return self._unavailable(text, outcome, place, call)

    def _unavailable(self, text: str, outcome: Outcome, place: Place, call: Call) -> Failure:
        """Return the failure of a 502, 503 or 504: from Triton in the protocol's error format, else from a proxy before it."""
        status = outcome.response.status
        if error_text(outcome.response.body) is not None:
            # For example a full queue: a sign of load, not of health.
            place.limit.shrink(self._clock())
            after = Next.FREE if status == 503 else Next.RATIONED
            return Failure(text, self._unless_once(call, after), outcome=outcome)
        self._watch.suspect(place.server)
        self._note_failure(place, call)
        if status == 502:
            # Behind a load balancer, the same address may reach another server.
            return self._ended(text, call, repeat=True)
        return Failure(text, self._unless_once(call, Next.FREE if status == 503 else Next.RATIONED))

    def _dead_stub(self, attempt: Attempt, place: Place, call: Call) -> Failure:
        """Return the failure of a request whose Python model's process has ended: because of it, unless it was known before."""
        was_known, place.has_dead_stub = place.has_dead_stub, True
        self._note_failure(place, call, SuspectKind.DEAD_STUB, at_once=True)
        text = f"{attempt.name}: the model's process has ended"
        if was_known:
            return Failure(text, self._unless_once(call, Next.FREE), loses_sequence=True)
        # Another model may survive what ended this one.
        return replace(self._ended(text, call), shuns_model=True)

    def _ended(self, text: str, call: Call, *, repeat: bool = False) -> Failure:
        """Return the failure of a request that a server, or a model's process, ended with."""
        # Whether a request of a sequence was worked on cannot be known, so its state is of no more use.
        after = self._unless_once(call, Next.ONE_MORE)
        return Failure(text, after, repeat=repeat, loses_sequence=True, ended=True)

    def _failed(self, attempt: Attempt, place: Place, call: Call, limit_s: float, error: EndpointError) -> Failure:
        text = f"{attempt.name}: {error}"
        match error:
            case EndpointBusyError():
                return Failure(text, Next.STOP if error.sent or call.continues else Next.FREE, Kind.BUSY)
            case EndpointRefusedError():
                self._watch.refused(place.server)
                return Failure(text, Next.FREE, loses_sequence=True)
            case EndpointResetError():
                self._watch.suspect(place.server)
                self._note_failure(place, call)
                return self._ended(text, call, repeat=error.stale)
            case EndpointTimeoutError() if error.sent:
                if call.infers and place.had_its_time(limit_s):
                    self._watch.suspect(place.server)
                    place.limit.shrink(self._clock())
                    self._note_failure(place, call, None if call.may_wait_for_sequences else SuspectKind.HUNG)
                return Failure(text, self._unless_once(call, Next.RATIONED), Kind.LATE)
            case EndpointAnswerError():
                # The server, or a proxy before it, is to blame, and the model may have worked on the request.
                self._watch.suspect(place.server)
                self._note_failure(place, call)
                return Failure(text, self._unless_once(call, Next.RATIONED))
            case _:
                self._watch.suspect(place.server)
                return Failure(text, Next.FREE)

    def _note_failure(
        self, place: Place, call: Call, kind: SuspectKind | None = None, *, at_once: bool = False
    ) -> None:
        """Count a failure of a model. If its breaker opens, schedule its closing and report the model as suspect."""
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


class _Stay:
    """A request's stay at a place that it has entered.

    It ends when the transport is done with the request. A request that was cut off may go on at the server: then it is still
    counted for a while, and keeps its room.
    """

    __slots__ = ("_clock", "_has_ended", "_has_left", "_in_flight", "_infers", "_is_done", "_place")

    def __init__(self, place: Place, infers: bool, clock: Callable[[], float]) -> None:
        self._place = place
        self._infers = infers
        self._clock = clock
        self._in_flight = place.in_flight
        self._is_done = False
        self._has_ended = False
        self._has_left = False

    def done(self, took_s: float | None) -> None:
        """See `tidegate.ports.Done`."""
        if took_s is None and not self._has_ended:
            # Whether it was cut off is known once `send` has raised.
            self._is_done = True
            return
        self._has_left = True
        self._place.leave(took_s if self._infers else None, self._in_flight, self._clock())

    def returned(self) -> None:
        """Note that `send` has returned."""
        self._has_ended = True
        if self._is_done and not self._has_left:
            self.done(None)

    def raised(self, error: BaseException, after_s: float) -> None:
        """Note that `send` has raised, `after_s` seconds after its start."""
        self._has_ended = True
        if self._has_left:
            return
        if isinstance(error, EndpointTimeoutError):
            is_cut_off = error.sent
        else:
            # The transport is done with nothing that it has not sent.
            is_cut_off = self._is_done and isinstance(error, asyncio.CancelledError)
        if is_cut_off:
            self._has_left = True
            self._place.cut_off(after_s, self._clock())
        else:
            self.done(None)
