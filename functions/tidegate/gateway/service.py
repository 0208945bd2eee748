"""One request through the gateway: admit, decide, dispatch, observe.

Each handler (`/v2`, `/v1`) translates its protocol into these four steps and back::

    admitted = await service.admit(Ask("title_ranking", lease, scope))
    decided = service.decide(admitted, context, service.now_s(), Limits(caller_ms=250))
    outcome = await service.dispatch(decided, call)
    service.answered(decided, call, outcome)

Errors carry no HTTP status: each protocol has its own.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Awaitable, Mapping
from collections.abc import Sequence as ItemSequence
from typing import Any

from tidegate.errors import DispatchError, SequenceLostError, TidegateError, UnknownObjectiveError
from tidegate.gateway.bindings import Bindings, Sequence
from tidegate.gateway.call import Call, Outcome
from tidegate.gateway.dispatcher import Dispatcher
from tidegate.gateway.fair_queue import flow_of
from tidegate.gateway.faults import inject
from tidegate.gateway.grants import Grants, pinned_target, traffic_of
from tidegate.gateway.load import LoadLimit
from tidegate.gateway.metadata import MetadataCache
from tidegate.gateway.model_checks import check_classes, check_pinned_version
from tidegate.gateway.private_ids import PrivateIds
from tidegate.gateway.quotas import Quotas
from tidegate.gateway.request import Admitted, Ask, Decided, Limits
from tidegate.gateway.sequences import NumericIds, check_sequence_target
from tidegate.gateway.shadowing import Shadowing
from tidegate.gateway.spans import end_with
from tidegate.gateway.streams import AnswerReader
from tidegate.ports import EngineSource, Observe, Served, Span, StreamEnd, Tracer
from tidegate.rules.contract import Traffic
from tidegate.rules.decision import Decision, Fault, Shadow
from tidegate.rules.nearest import nearest
from tidegate.shadows.counts import LeftOut


class Service:
    """Carries requests through the gateway.

    Args:
        engines: source of the engine of the live rules.
        dispatcher: carries decisions out.
        grants: checks callers against callers.yaml.
        observe: callback for every decided inference, called before its answer is sent; None for no callback.
        quotas: holds callers and objectives to their limits.
        load: limits the requests under way in the process; None: no limit.
        shadowing: makes the copies for shadows; None for no copies.
        private_ids: replaces the sequence ids of named callers; by default without a key.
        tracer: begins the span of each request that has a record; None: requests are not traced.
    """

    def __init__(
        self,
        engines: EngineSource,
        dispatcher: Dispatcher,
        grants: Grants,
        observe: Observe | None = None,
        quotas: Quotas | None = None,
        load: LoadLimit | None = None,
        shadowing: Shadowing | None = None,
        private_ids: PrivateIds | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self.engines = engines
        self.dispatcher = dispatcher
        self.grants = grants
        self.metadata = MetadataCache(dispatcher)
        self._numeric_ids = NumericIds(dispatcher)
        self._bindings = Bindings()
        self._private_ids = private_ids or PrivateIds()
        self._observe = observe
        self._quotas = quotas or Quotas()
        self._load = load
        self._shadowing = shadowing
        self._tracer = tracer
        self.now_s = time.perf_counter

    def is_ready(self) -> bool:
        """Return whether rules are loaded and every objective has a shard with a known endpoint."""
        try:
            engine = self.engines.engine()
        except TidegateError:
            return False
        endpoints = self.dispatcher.directory.endpoints
        return all(
            any(endpoints(shard) for target in engine.targets(name) for shard in target.shards)
            for name in engine.objectives
        )

    async def admit(self, ask: Ask) -> Admitted:
        """Check a request against the grants and the limits of the live rules, and wait until the process can take it.

        Raises:
            LimitedError: the caller or the objective has used up a limit.
            OverloadedError: the process cannot take the request in time.
            RefusedError: the caller has no grant for the objective, for the target that it pins, or for its traffic class.
            UnknownObjectiveError: the live rules have no such objective.
        """
        if (waiting := self.engines.catching_up()) is not None:
            await waiting
        admitted = self.admit_at_once(ask)
        lease, load = ask.lease, self._load
        if load is None:
            return admitted
        if load.enter():
            lease.count(load)
            return admitted
        began_s = self.now_s()
        await load.wait(admitted.flow, self._patience_s(admitted))
        lease.count(load)
        waited_s = self.now_s() - began_s
        if ask.record is not None:
            ask.record.waited_s = waited_s
        admitted.waited_s = waited_s
        return admitted

    def admit_at_once(self, ask: Ask) -> Admitted:
        """Check a request that is answered without waiting for anything, so that the process's load does not limit it.

        Raises:
            LimitedError, RefusedError, UnknownObjectiveError: as `admit` does.
        """
        record = ask.record
        if record is not None:
            record.objective = ask.objective
            if self._tracer is not None:
                record.span = self._tracer.begin(record.headers, record.began_s)
        admitted = self._admit(ask)
        if record is not None:
            record.caller, record.traffic = admitted.caller, admitted.traffic
        if self._quotas.limit(admitted.engine):
            self._acquire(admitted)
        return admitted

    def _acquire(self, admitted: Admitted) -> None:
        engine, name = admitted.engine, admitted.caller
        caller = None if name is None or engine.callers is None else engine.callers[name]
        self._quotas.acquire(engine, caller, admitted.objective, admitted.ask.lease)

    def _patience_s(self, admitted: Admitted) -> float:
        """Return how long the request's answer may take, as far as that is known before its rule is."""
        limits_ms = (admitted.ask.caller_ms, admitted.objective.timeout_ms)
        return min((each / 1000.0 for each in limits_ms if each is not None), default=math.inf)

    def admit_again(self, admitted: Admitted) -> Admitted:
        """Admit a request by the current rules, which may have changed while its body arrived. Waits for no later ones: the
        request has waited for recent rules once, in `admit`. Its limits are not checked again.

        Raises:
            RefusedError, UnknownObjectiveError: as `admit` does.
        """
        if self.engines.engine() is admitted.engine:
            return admitted
        again = self._admit(admitted.ask)
        again.waited_s = admitted.waited_s
        return again

    def _admit(self, ask: Ask) -> Admitted:
        engine = self.engines.engine()
        caller = self.grants.check(engine, ask.identity, ask.objective)
        objective = engine.objectives.get(ask.objective)
        if objective is None:
            raise UnknownObjectiveError(ask.objective, nearest(ask.objective, engine.objectives))
        pinned = pinned_target(engine, caller, ask.pins) if ask.pins else None
        traffic = traffic_of(caller, ask.marks)
        if caller is None:
            return Admitted(ask, engine, objective, pinned, ask.connection, None, traffic)
        return Admitted(ask, engine, objective, pinned, flow_of(caller), caller.name, traffic)

    def decide(self, admitted: Admitted, context: Mapping[str, Any], started_s: float, limits: Limits) -> Decided:
        """Decide an admitted request by its context.

        Raises:
            ContextError: an attribute is missing, of the wrong type or outside its domain.
            NoRuleError: no rule matches.
        """
        engine = admitted.engine
        decision = engine.decide(admitted.ask.objective, context)
        copied = decision.shadows and self._shadowing is not None
        shadows = engine.sampled(decision, context, random.random) if copied else ()
        decided = self._decided(admitted, decision, started_s, limits, shadows)
        record = decided.record
        if record is not None:
            record.decide(decided.decision, admitted.objective, context)
            if record.span is not None:
                record.span.child("decide", started_s).end(decided.decided_s)
        return decided

    def represent(self, admitted: Admitted, started_s: float, limits: Limits) -> Decided:
        """Decide a request without a usable context, by the objective's representative decision."""
        decided = self._decided(admitted, admitted.engine.representative(admitted.ask.objective), started_s, limits)
        if decided.record is not None:
            decided.record.decide(decided.decision, admitted.objective, {})
        return decided

    def _decided(
        self,
        admitted: Admitted,
        decision: Decision,
        started_s: float,
        limits: Limits,
        shadows: tuple[Shadow, ...] = (),
    ) -> Decided:
        engine, pinned = admitted.engine, admitted.pinned
        if pinned is not None:
            decision = engine.override(decision, pinned)
        decided_s = self.now_s()
        deadline_s = self._deadline_s(admitted, decision, limits)
        return Decided(
            engine,
            decision,
            pinned is not None,
            shadows,
            admitted.flow,
            admitted.caller,
            admitted.traffic,
            deadline_s,
            started_s,
            decided_s,
            admitted.ask.record,
        )

    def join(
        self, admitted: Admitted, decided: Decided, sequence: Sequence, limits: Limits
    ) -> tuple[Decided, Sequence]:
        """Return a decided request of a sequence with the decision and the endpoint that the sequence has, if it has begun, and
        with the id that is the caller's alone, if it has a name.

        Raises:
            RefusedError: the request pins another target than the sequence has.
            UnavailableError: the key of the ids cannot be read now.
        """
        objective, caller = decided.decision.objective, decided.caller
        if caller is not None and sequence.given is not None:
            sequence = sequence._replace(sent=self._private_ids.of(objective, caller, sequence.given))
        bound = self._bindings.find(objective, caller, sequence)
        if bound is None:
            return decided, sequence
        if admitted.pinned is not None:
            check_sequence_target(admitted.pinned, bound.decision.target)
        deadline_s = self._deadline_s(admitted, bound.decision, limits)
        if decided.record is not None:
            decided.record.decision = bound.decision
        return decided.with_decision(bound.decision, deadline_s), sequence._replace(endpoint=bound.endpoint)

    def _deadline_s(self, admitted: Admitted, decision: Decision, limits: Limits) -> float:
        return self.dispatcher.deadline_s(decision, limits.caller_ms, limits.function_ms) - admitted.waited_s

    async def checked(
        self, decided: Decided, sequence: Sequence | None = None, classified: ItemSequence[str] = ()
    ) -> Decided:
        """Check a decided request against its model's metadata, and return it as it may be sent.

        Only needed for a request that is pinned, belongs to a sequence or wants classes.

        Args:
            decided: the request.
            sequence: the sequence that it belongs to.
            classified: the outputs that it wants as classes; such a request is decided without fallbacks.

        Raises:
            DispatchError: no target answered.
            ModelAnswerError: the model's metadata or configuration cannot be read.
            ModelRefusedError: the model answered with an error.
            RefusedError: the pinned version is not served, or the request could crash the server.
        """
        decision, deadline_s = decided.decision, decided.deadline_s
        if sequence is not None:
            await self._numeric_ids.check(decision, sequence.given, deadline_s)
        if classified:
            decision = await check_classes(self.metadata, decision, classified, deadline_s)
        if decided.is_pinned:
            await check_pinned_version(self.metadata, decided.engine, decision, deadline_s)
        sent = decided.with_decision(decision)
        # No shadow has been checked for classes.
        return self._without_shadows(sent, LeftOut.CLASSES) if classified else sent

    def dispatch(self, decided: Decided, call: Call) -> Awaitable[Outcome]:
        """Carry a decision out. A synthetic inference may get its rule's fault instead.

        Raises:
            DispatchError: no target answered, or the rule's fault says so.
            EndpointAnswerTooLargeError: the answer exceeds the transport's limit.
        """
        if decided.record is not None and decided.record.span is not None:
            return self._traced(decided.record.span, decided, call)
        return self._dispatch(decided, call)

    async def _traced(self, span: Span, decided: Decided, call: Call) -> Outcome:
        call.span = dispatching = span.child("dispatch")
        try:
            outcome = await self._dispatch(decided, call)
        except BaseException as error:
            end_with(dispatching, error)
            raise
        if outcome.response.stream is None:
            # Else it ends with the request's span, when the stream has ended.
            dispatching.end()
        return outcome

    def _dispatch(self, decided: Decided, call: Call) -> Awaitable[Outcome]:
        if decided.decision.fault is not None and decided.traffic is Traffic.SYNTHETIC and call.infers:
            return self._faulted(decided, decided.decision.fault, call)
        if call.sequence is not None:
            return self._in_sequence(decided, call.sequence, call)
        return self.dispatcher.dispatch(decided.decision, call, decided.deadline_s)

    async def _faulted(self, decided: Decided, fault: Fault, call: Call) -> Outcome:
        if random.random() * 100.0 < fault.percent:  # noqa: S311  # no secret depends on it
            await inject(fault, decided.decision.rule, self.dispatcher.time_left_s(decided.deadline_s))
        if call.sequence is not None:
            return await self._in_sequence(decided, call.sequence, call)
        return await self.dispatcher.dispatch(decided.decision, call, decided.deadline_s)

    async def _in_sequence(self, decided: Decided, sequence: Sequence, call: Call) -> Outcome:
        try:
            outcome = await self.dispatcher.dispatch(decided.decision, call, decided.deadline_s)
        except SequenceLostError:
            self._bindings.lose(decided.decision.objective, decided.caller, sequence)
            raise
        if outcome.response.status < 400:
            self._bindings.bind(decided.decision, decided.caller, sequence, outcome.attempt.endpoint)
        return outcome

    def reader(self, decided: Decided, outcome: Outcome, call: Call) -> AnswerReader:
        """Return the reader of a streamed answer; see `Dispatcher.reader`."""
        return self.dispatcher.reader(outcome, call, decided.deadline_s)

    def answered(
        self,
        decided: Decided,
        call: Call,
        outcome: Outcome,
        stream_end: StreamEnd | None = None,
        streamed_s: float | None = None,
    ) -> None:
        """Report a request that a target answered, and copy it for its shadows. A streamed answer is reported once it has ended,
        with the time (`now_s`) of its first byte."""
        if decided.shadows:
            self._copy(decided, call, outcome)
        if self._observe is None and decided.record is None:
            return
        attempt, decided_s = outcome.attempt, decided.decided_s
        self._report(
            decided,
            Served(
                decided.decision,
                outcome.response.status,
                attempt.target,
                attempt.shard,
                len(outcome.failures),
                (decided_s - decided.started_s) * 1000.0,
                ((self.now_s() if streamed_s is None else streamed_s) - decided_s) * 1000.0,
                outcome.triton_ms,
                decided.caller,
                decided.traffic,
                stream_end,
                0.0 if streamed_s is None else (self.now_s() - streamed_s) * 1000.0,
                outcome.hedge,
                _trace_id(decided),
            ),
        )

    def failed(self, decided: Decided, error: Exception, status: int) -> None:
        """Report a request that no target answered; `status` is the HTTP status that the caller gets."""
        self._without_shadows(decided, LeftOut.NO_ANSWER)
        if decided.record is not None:
            decided.record.fail(error)
        if self._observe is None and decided.record is None:
            return
        self._report(
            decided,
            Served(
                decided.decision,
                status,
                failed_attempts=len(error.attempts) if isinstance(error, DispatchError) else 0,
                decide_ms=(decided.decided_s - decided.started_s) * 1000.0,
                dispatch_ms=(self.now_s() - decided.decided_s) * 1000.0,
                caller=decided.caller,
                traffic=decided.traffic,
                trace_id=_trace_id(decided),
            ),
        )

    def _report(self, decided: Decided, served: Served) -> None:
        if decided.record is not None:
            decided.record.served = served
        if self._observe is not None:
            self._observe(served)

    def _copy(self, decided: Decided, call: Call, outcome: Outcome) -> None:
        if decided.is_pinned:
            self._without_shadows(decided, LeftOut.PINNED)
        elif self._shadowing is not None:
            decision = decided.decision
            ranking = decided.engine.objectives[decision.objective].ranking
            span = None if decided.record is None else decided.record.span
            self._shadowing.copy(decided.shadows, decision, ranking, call, outcome, span)

    def _without_shadows(self, decided: Decided, reason: LeftOut) -> Decided:
        if not decided.shadows or self._shadowing is None:
            return decided
        # A caller may pin any version that there is: such targets are no pair of the rule's.
        decision = None if decided.is_pinned else decided.decision
        self._shadowing.leave_out(decided.shadows, reason, decision)
        return decided.without_shadows()


def _trace_id(decided: Decided) -> str | None:
    span = None if decided.record is None else decided.record.span
    return span.trace_id if span is not None and span.is_recorded else None
