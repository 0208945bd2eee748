"""Carries a decision out: one deadline, the next endpoint, shard or fallback when one fails, health and room per model.

The stable API::

    dispatcher = Dispatcher(transport, directory, DispatchConfig())
    deadline_s = dispatcher.deadline_s(decision, caller_ms=250)
    outcome = await dispatcher.dispatch(decision, Call("POST", "/infer", headers, body), deadline_s)
"""

from __future__ import annotations

from tidegate.dispatch.call import Attempt, Call, Outcome
from tidegate.dispatch.config import DispatchConfig
from tidegate.dispatch.dispatcher import Dispatcher, ignore_suspect

__all__ = ["Attempt", "Call", "DispatchConfig", "Dispatcher", "Outcome", "ignore_suspect"]
