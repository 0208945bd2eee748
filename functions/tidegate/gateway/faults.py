"""Faults that a rule declares for synthetic requests, so that callers can rehearse their time-outs and fallbacks."""

from __future__ import annotations

import asyncio

from tidegate.errors import DeadlineError, InjectedFaultError
from tidegate.rules.decision import Fault


async def inject(fault: Fault, rule: str, left_s: float) -> None:
    """Delay a request of `rule` that must be answered within `left_s` seconds, then fail it if the fault has a status.

    Raises:
        DeadlineError: the delay is longer than that; after `left_s` seconds.
        InjectedFaultError: the fault has a status.
    """
    if fault.delay_ms is not None:
        delay_s = fault.delay_ms / 1000.0
        await asyncio.sleep(min(delay_s, max(left_s, 0.0)))
        if delay_s >= left_s:
            raise DeadlineError(f"rule '{rule}' delays this synthetic request beyond its deadline, by its `fault`")
    if fault.abort_status is not None:
        raise InjectedFaultError(rule, fault.abort_status)
