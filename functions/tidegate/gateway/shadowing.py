"""Copies requests for the shadows that sampled them.

Nothing here waits, and nothing changes the health, the limits or the queues of requests: a copy is handed to a `ShadowSink`, or
is dropped and counted.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from tidegate.gateway.call import Call, Outcome
from tidegate.gateway.dispatcher import Dispatcher
from tidegate.oip.infer_message import parameter_fields
from tidegate.oip.parameters import TRAFFIC
from tidegate.ports import Endpoint, Headers, ShadowSink, Span
from tidegate.ports.tracing import continued
from tidegate.rules.contract import Ranking, Traffic
from tidegate.rules.decision import Decision, Shadow, Target
from tidegate.shadows.copy import ShadowCopy
from tidegate.shadows.counts import Drop, LeftOut, dropped, left_out
from tidegate.shadows.exchange import Answer, Pair
from tidegate.shadows.sampled import SAMPLED, PairCounts

_MOST_KEPT: Final = 4096
_MARK: Final = parameter_fields([(TRAFFIC, Traffic.SHADOW.value.encode())])
"""What tells the model of a serialized request that it is a shadow's."""


class Shadowing:
    """Makes copies, and counts the sampled requests by how they ended: `counts` all together, `pairs` those of each pair.

    Args:
        dispatcher: knows the endpoints, and which of them have room.
        sink: takes the copies.
        clock: Unix time in seconds.
        rpc_port_of: returns the gRPC port of an endpoint, or None if it has none; None where no copy is sent over gRPC.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        sink: ShadowSink,
        clock: Callable[[], float] = time.time,
        rpc_port_of: Callable[[Endpoint], int | None] | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.pairs = PairCounts()
        self._dispatcher = dispatcher
        self._sink = sink
        self._clock = clock
        self._rpc_port_of = rpc_port_of
        self._pairs: dict[tuple[int, int, int], tuple[Decision, Target, Pair]] = {}

    def leave_out(
        self, shadows: Sequence[Shadow], reason: LeftOut, decision: Decision | None, primary: Target | None = None
    ) -> None:
        """Count a request that is not copied, in the pairs of `primary`, or else of the decision's own target; without a decision in no
        pair."""
        self.counts[SAMPLED] += len(shadows)
        self.counts[left_out(reason)] += len(shadows)
        if decision is not None:
            at = self._clock()
            for shadow in shadows:
                self._count(
                    self._pair(decision, primary or decision.target, shadow.target), decision, at, left_out(reason)
                )

    def _count(self, pair: Pair, decision: Decision, at: float, how: str | None) -> None:
        self.pairs.add(pair, decision.revision, at, SAMPLED)
        if how is not None:
            self.pairs.add(pair, decision.revision, at, how)

    def copy(
        self,
        shadows: Sequence[Shadow],
        decision: Decision,
        ranking: Ranking | None,
        call: Call,
        outcome: Outcome,
        span: Span | None = None,
    ) -> None:
        """Copy a request that was answered for each of the shadows that sampled it; the copies continue the trace of `span`."""
        if call.sequence is not None:
            self.leave_out(shadows, LeftOut.SEQUENCE, decision, outcome.target)
            return
        is_rpc = call.appended is not None
        if is_rpc and call.stream_above_bytes is None and self._rpc_port_of is None:
            self.leave_out(shadows, LeftOut.GRPC, decision, outcome.target)
            return
        is_whole = call.stream_above_bytes is None if is_rpc else call.rest is None and call.suffix == "/infer"
        if not is_whole or outcome.response.stream is not None:
            self.leave_out(shadows, LeftOut.STREAMED, decision, outcome.target)
            return
        self.counts[SAMPLED] += len(shadows)
        at = self._clock()
        headers = call.headers if span is None else continued(call.headers, span)
        for shadow in shadows:
            pair = self._pair(decision, outcome.target, shadow.target)
            reason = self._offer(shadow.target, pair, at, decision, ranking, call, headers, outcome)
            if reason is not None:
                self.counts[dropped(reason)] += 1
            self._count(pair, decision, at, None if reason is None else dropped(reason))

    def _offer(
        self,
        target: Target,
        pair: Pair,
        at: float,
        decision: Decision,
        ranking: Ranking | None,
        call: Call,
        headers: Headers,
        outcome: Outcome,
    ) -> Drop | None:
        dispatcher = self._dispatcher
        reason = self._sink.refusal(pair)
        if reason is not None:
            return reason
        endpoint = dispatcher.spare_endpoint(target)
        if endpoint is None:
            directory = dispatcher.directory
            is_known = any(directory.endpoints(shard) for shard in target.shards)
            return Drop.OVERLOADED if is_known else Drop.NO_ENDPOINT
        is_rpc, port, response = call.appended is not None, endpoint.port, outcome.response
        if is_rpc:
            rpc_port = None if self._rpc_port_of is None else self._rpc_port_of(endpoint)
            if rpc_port is None:
                return Drop.NO_ENDPOINT
            port = rpc_port
        copy = ShadowCopy(
            pair,
            decision.revision,
            at,
            ranking,
            endpoint.shard,
            (endpoint.host, port),
            call.path_for(target, False),
            headers if is_rpc else _marked(headers),
            call.message_for(target, False, _MARK) if is_rpc else call.body,
            # Without the lease, which counts in the budget of requests.
            Answer(response.status, response.headers, response.body, outcome.triton_ms, is_rpc),
        )
        return self._sink.offer(copy)

    def _pair(self, decision: Decision, primary: Target, shadow: Target) -> Pair:
        # An engine returns the same objects for equal requests.
        key = (id(decision), id(primary), id(shadow))
        kept = self._pairs.get(key)
        if kept is not None and kept[0] is decision and kept[1] is primary:
            return kept[2]
        if len(self._pairs) >= _MOST_KEPT:
            self._pairs.clear()
        pair = Pair.of(decision.objective, decision.rule, primary, shadow)
        self._pairs[key] = (decision, primary, pair)
        return pair


def _marked(headers: Headers) -> Headers:
    """Return headers that tell the model that a request is a shadow's."""
    kept = [each for each in headers if each[0] != TRAFFIC]
    kept.append((TRAFFIC, Traffic.SHADOW.value.encode()))
    return kept
