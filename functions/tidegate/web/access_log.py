"""The log of requests: one line for each that names an objective."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final

from tidegate.gateway.record import Record
from tidegate.ports import Served, StreamEnd
from tidegate.rules.decision import Decision, Target
from tidegate.trace_context import TRACEPARENT, trace_parent
from tidegate.web.decided import reason_of
from tidegate.web.milliseconds import THOUSANDTHS, add_ms

Fields = dict[str, Any]
"""JSON values by name, without those that the request does not have."""

WriteLine = Callable[[bytes], None]
"""Takes a line: a JSON object, without an end of line."""

_LONGEST_TEXT: Final = 256
_MOST_ELEMENTS: Final = 32
_MOST_KEPT: Final = 4096
_encode: Callable[[Any], str] = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=str).encode


class RequestOutcome(StrEnum):
    """How a request ended."""

    ANSWERED = "answered"
    FALLBACK = "fallback"
    FAILED = "failed"
    """It was decided, and no target answered."""

    BROKEN = "broken"
    """Its answer broke off after it had begun."""

    DECIDED = "decided"
    """It asked for no inference: it got a decision, or an answer about its model."""

    REFUSED = "refused"
    """It got an error before it was dispatched."""

    LEFT = "left"
    """Its caller left before an answer had begun."""


# A member of an enumeration is looked up through several dictionaries, a constant is not.
_ANSWERED: Final = RequestOutcome.ANSWERED
_FALLBACK: Final = RequestOutcome.FALLBACK
_BROKEN_STREAM: Final = StreamEnd.BROKEN
_SAMPLED: Final = frozenset({RequestOutcome.ANSWERED, RequestOutcome.DECIDED, RequestOutcome.REFUSED})


class AccessLog:
    """Writes the lines.

    Args:
        write: writes one line; must not block.
        percent: how many of the requests that were answered, decided or refused are logged; all others always are.
    """

    def __init__(self, write: WriteLine, percent: float = 100.0) -> None:
        self._write = write
        self._percent = percent
        self._kept: dict[Any, tuple[Decision | None, Target | None, bytes]] = {}
        self._second_s = 0
        self._second = b""

    def ended(self, record: Record, status: int | str | None) -> None:
        """Log a request that has ended.

        Args:
            record: what is known of it.
            status: the HTTP status or gRPC code that its caller got; None if it left before.
        """
        if record.objective is None:
            return
        took_s = time.perf_counter() - record.began_s
        outcome = outcome_of(record, status)
        if self._percent < 100.0 and outcome in _SAMPLED and random.random() * 100.0 >= self._percent:  # noqa: S311  # no secret depends on it
            return
        parts = self._times(record.served, took_s)
        self._rest(parts, record)
        parts.append(self._constant(record, outcome, status))
        self._write(b"".join(parts))

    def _times(self, served: Served | None, took_s: float) -> list[bytes]:
        """Return the parts of the members that are different in each line, as those of an object that go on."""
        now_s = time.time()
        second = int(now_s)
        if second != self._second_s:
            self._second_s = second
            self._second = time.strftime('{"time":"%Y-%m-%dT%H:%M:%S', time.gmtime(second)).encode()
        parts = [self._second, THOUSANDTHS[int((now_s - second) * 1000.0)], b'Z","took_ms":']
        add_ms(parts, took_s * 1000.0)
        if served is not None:
            parts.append(b',"decide_ms":')
            add_ms(parts, served.decide_ms)
            parts.append(b',"dispatch_ms":')
            add_ms(parts, served.dispatch_ms)
            if served.triton_ms:
                parts.append(b',"triton_ms":')
                add_ms(parts, served.triton_ms)
        parts.append(b",")
        return parts

    def _rest(self, parts: list[bytes], record: Record) -> None:
        """Add what else is seldom the same for two requests."""
        fields: Fields = {}
        served = record.served
        if record.waited_s:
            fields["waited_ms"] = round(record.waited_s * 1000.0, 3)
        if served is not None and served.stream_end is not None:
            fields["stream_ms"] = round(served.stream_ms, 3)
        continues = False
        for name, value in record.headers:
            if name == TRACEPARENT:
                continues = True
            elif name == b"x-request-id":
                fields["request_id"] = value.decode("latin-1")[:_LONGEST_TEXT]
        trace = record.span or (trace_parent(record.headers) if continues else None)
        if trace is not None:
            fields["trace_id"] = trace.trace_id
        if record.context:
            fields["context"] = {name: _shown(value) for name, value in record.context.items()}
        if fields:
            parts += [_encode(fields)[1:-1].encode(), b","]

    def _constant(self, record: Record, outcome: RequestOutcome, status: int | str | None) -> bytes:
        """Return what many requests have in common, as the last members of an object."""
        objective, decision, served = record.objective, record.decision, record.served
        assert objective is not None
        target = None if served is None else served.target
        # A decision is one object for all requests that get it.
        key: Any = (objective, outcome, status, record.caller, record.traffic, record.error, id(decision), id(target))
        if served is not None:
            key = (*key, served.shard, served.failed_attempts, served.stream_end, served.hedge)
        kept = self._kept.get(key)
        if kept is not None and kept[0] is decision and kept[1] is target:
            return kept[2]
        fields: Fields = {"objective": objective[:_LONGEST_TEXT], "outcome": outcome.value}
        if status is not None:
            fields["status"] = status
        constant = _encode(fields | known_fields(record))[1:].encode()
        # Without a decision, the name may be any that a caller made up.
        if decision is not None:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[key] = (decision, target, constant)
        return constant


def outcome_of(record: Record, status: int | str | None) -> RequestOutcome:
    """Return how a request ended by the HTTP status or gRPC code that its caller got; None if it left before."""
    served = record.served
    if served is None:
        if status is None:
            return RequestOutcome.LEFT
        if record.has_failed:
            return RequestOutcome.FAILED
        is_error = status >= 400 if isinstance(status, int) else status != "OK"
        return RequestOutcome.REFUSED if is_error else RequestOutcome.DECIDED
    if served.target is None:
        return RequestOutcome.FAILED
    if served.stream_end is _BROKEN_STREAM:
        return RequestOutcome.BROKEN
    return _FALLBACK if served.is_fallback else _ANSWERED


def known_fields(record: Record) -> Fields:
    """Return what a line has of a request's origin, its decision and how that was carried out: no time, and no value of its context."""
    fields: Fields = {}
    if record.caller is not None:
        fields["caller"] = record.caller
    if record.traffic is not None:
        fields["traffic"] = record.traffic.value
    if record.error is not None:
        fields["error"] = record.error
    served = record.served
    if record.decision is not None:
        _add_decision(fields, record.decision, served)
    if served is not None:
        _add_served(fields, served)
    return fields


def _add_decision(fields: Fields, decision: Decision, served: Served | None) -> None:
    target = decision.target if served is None or served.target is None else served.target
    fields["rule"] = decision.rule
    fields["reason"] = str(reason_of(decision, target))
    fields["model"] = target.model
    fields["revision"] = decision.revision
    if target.version is not None:
        fields["version"] = target.version
    if decision.variant is not None:
        fields["variant"] = decision.variant
    if decision.cell is not None:
        fields["cell"] = decision.cell


def _add_served(fields: Fields, served: Served) -> None:
    fields["attempts"] = served.failed_attempts + (served.target is not None)
    if served.shard is not None:
        fields["shard"] = served.shard
    if served.stream_end is not None:
        fields["stream_end"] = served.stream_end.value
    if served.hedge is not None:
        fields["hedge"] = served.hedge.value


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return value[:_LONGEST_TEXT]
    if isinstance(value, list | tuple | set | frozenset):
        return [str(each)[:_LONGEST_TEXT] for each in sorted(value)[:_MOST_ELEMENTS]]
    return value
