"""The log of requests: one line for each that names an objective."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from enum import StrEnum
from functools import lru_cache
from typing import Any

from tidegate.gateway.record import Record
from tidegate.ports import Served, StreamEnd
from tidegate.rules.decision import Decision
from tidegate.trace_context import trace_parent
from tidegate.web.decided import reason_of

Fields = dict[str, Any]
"""A line: JSON values by name, without those that the request does not have."""

WriteLine = Callable[[Fields], None]

_LONGEST_TEXT = 256
_MOST_ELEMENTS = 32


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


_SAMPLED = frozenset({RequestOutcome.ANSWERED, RequestOutcome.DECIDED, RequestOutcome.REFUSED})


class AccessLog:
    """Writes the lines.

    Args:
        write: writes one line; must not block.
        percent: how many of the requests that were answered, decided or refused are logged; all others always are.
    """

    def __init__(self, write: WriteLine, percent: float = 100.0) -> None:
        self._write = write
        self._percent = percent

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
        if outcome in _SAMPLED and random.random() * 100.0 >= self._percent:  # noqa: S311  # no secret depends on it
            return
        self._write(_fields(record, outcome, status, took_s))


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
    if served.stream_end is StreamEnd.BROKEN:
        return RequestOutcome.BROKEN
    return RequestOutcome.FALLBACK if served.is_fallback else RequestOutcome.ANSWERED


def _fields(record: Record, outcome: RequestOutcome, status: int | str | None, took_s: float) -> Fields:
    assert record.objective is not None
    now_s = time.time()
    fields: Fields = {
        "time": f"{_second(int(now_s))}.{int(now_s % 1 * 1000):03d}Z",
        "objective": record.objective[:_LONGEST_TEXT],
        "outcome": outcome.value,
        "took_ms": round(took_s * 1000.0, 3),
    }
    if status is not None:
        fields["status"] = status
    _add_known(fields, record)
    trace = record.span or trace_parent(record.headers)
    if trace is not None:
        fields["trace_id"] = trace.trace_id
    for name, value in record.headers:
        if name == b"x-request-id":
            fields["request_id"] = value.decode("latin-1")[:_LONGEST_TEXT]
    if record.context:
        fields["context"] = {name: _shown(value) for name, value in record.context.items()}
    return fields


def known_fields(record: Record) -> Fields:
    """Return what a line has of a request's origin, its decision and how that was carried out: no value of its context."""
    fields: Fields = {}
    _add_known(fields, record)
    return fields


def _add_known(fields: Fields, record: Record) -> None:
    if record.caller is not None:
        fields["caller"] = record.caller
    if record.traffic is not None:
        fields["traffic"] = record.traffic.value
    if record.waited_s:
        fields["waited_ms"] = round(record.waited_s * 1000.0, 3)
    if record.error is not None:
        fields["error"] = record.error
    served = record.served
    if record.decision is not None:
        _add_decision(fields, record.decision, served)
    if served is not None:
        _add_served(fields, served)


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
    fields["decide_ms"] = round(served.decide_ms, 3)
    fields["dispatch_ms"] = round(served.dispatch_ms, 3)
    if served.shard is not None:
        fields["shard"] = served.shard
    if served.triton_ms:
        fields["triton_ms"] = round(served.triton_ms, 3)
    if served.stream_end is not None:
        fields["stream_end"] = served.stream_end.value
        fields["stream_ms"] = round(served.stream_ms, 3)
    if served.hedge is not None:
        fields["hedge"] = served.hedge.value


@lru_cache(maxsize=2)
def _second(time_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time_s))


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return value[:_LONGEST_TEXT]
    if isinstance(value, list | tuple | set | frozenset):
        return [str(each)[:_LONGEST_TEXT] for each in sorted(value)[:_MOST_ELEMENTS]]
    return value
