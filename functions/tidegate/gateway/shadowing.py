"""Copies requests for the shadows that sampled them.

Nothing here waits, and nothing changes the health, the limits or the queues of requests: a copy is handed to a `ShadowSink`, or
is dropped and counted.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

from tidegate.gateway.call import TRAFFIC_HEADER, Call, Outcome
from tidegate.gateway.dispatcher import Dispatcher
from tidegate.ports import Headers, ShadowSink
from tidegate.rules.contract import Ranking, Traffic
from tidegate.rules.decision import Decision, Shadow, Target
from tidegate.shadows.copy import ShadowCopy
from tidegate.shadows.counts import Drop, LeftOut, dropped, left_out
from tidegate.shadows.exchange import Answer, Pair

_MOST_KEPT = 4096


class Shadowing:
    """Makes copies, and counts the sampled requests by how they ended.

    Args:
        dispatcher: knows the endpoints, and which of them have room.
        sink: takes the copies.
        clock: Unix time in seconds.
    """

    def __init__(self, dispatcher: Dispatcher, sink: ShadowSink, clock: Callable[[], float] = time.time) -> None:
        self.counts: Counter[str] = Counter()
        self._dispatcher = dispatcher
        self._sink = sink
        self._clock = clock
        self._pairs: dict[tuple[int, int, int], tuple[Decision, Target, Pair]] = {}

    def leave_out(self, shadows: Sequence[Shadow], reason: LeftOut) -> None:
        """Count a request that is not copied."""
        self.counts["sampled"] += len(shadows)
        self.counts[left_out(reason)] += len(shadows)

    def copy(
        self, shadows: Sequence[Shadow], decision: Decision, ranking: Ranking | None, call: Call, outcome: Outcome
    ) -> None:
        """Copy a request that was answered for each of the shadows that sampled it."""
        if call.sequence is not None:
            self.leave_out(shadows, LeftOut.SEQUENCE)
            return
        if call.path is not None:
            self.leave_out(shadows, LeftOut.GRPC)
            return
        if call.rest is not None or call.suffix != "/infer" or outcome.response.stream is not None:
            self.leave_out(shadows, LeftOut.STREAMED)
            return
        self.counts["sampled"] += len(shadows)
        for shadow in shadows:
            reason = self._offer(shadow, decision, ranking, call, outcome)
            if reason is not None:
                self.counts[dropped(reason)] += 1

    def _offer(
        self, shadow: Shadow, decision: Decision, ranking: Ranking | None, call: Call, outcome: Outcome
    ) -> Drop | None:
        target, dispatcher = shadow.target, self._dispatcher
        pair = self._pair(decision, outcome.target, target)
        reason = self._sink.refusal(pair)
        if reason is not None:
            return reason
        endpoint = dispatcher.spare_endpoint(target)
        if endpoint is None:
            directory = dispatcher.directory
            is_known = any(directory.endpoints(shard) for shard in target.shards)
            return Drop.OVERLOADED if is_known else Drop.NO_ENDPOINT
        response = outcome.response
        copy = ShadowCopy(
            pair,
            decision.revision,
            self._clock(),
            ranking,
            endpoint.shard,
            (endpoint.host, endpoint.port),
            call.path_for(target, False),
            _marked(call.headers),
            call.body,
            # Without the lease, which counts in the budget of requests.
            Answer(response.status, response.headers, response.body, outcome.triton_ms),
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
    kept = [each for each in headers if each[0] != TRAFFIC_HEADER]
    kept.append((TRAFFIC_HEADER, Traffic.SHADOW.value.encode()))
    return kept
