"""Carries decisions out: one deadline, retries on the next endpoint, shard or fallback, health and concurrency per model.

The stable API::

    dispatcher = Dispatcher(transport, directory, DispatchConfig())
    deadline_s = dispatcher.deadline_s(decision, caller_ms=250)
    outcome = await dispatcher.dispatch(decision, Call("POST", "/infer", headers, body), deadline_s)
"""

from __future__ import annotations

from tidegate.gateway.call import Attempt, Call, Outcome
from tidegate.gateway.config import DispatchConfig
from tidegate.gateway.dispatcher import Dispatcher, ignore_suspect

__all__ = ["Attempt", "Call", "DispatchConfig", "Dispatcher", "Outcome", "ignore_suspect"]
