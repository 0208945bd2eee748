"""A gateway's answers: bodies, and problem documents as the errors that they stand for."""

from __future__ import annotations

import json
from typing import Any, Final

from tidegate.client.exchange import Reply
from tidegate.errors import (
    ContextError,
    LimitedError,
    NoRuleError,
    OverloadedError,
    Refusal,
    RefusedError,
    StoreError,
    TidegateError,
    UnavailableError,
    UnknownObjectiveError,
)

_REFUSALS: Final = frozenset(each.value for each in Refusal)
_KIND: Final = "urn:tidegate:problem:"


def checked(reply: Reply, path: str) -> bytes:
    """Return the body of a successful answer.

    Raises:
        TidegateError: the answer is an error: the one that it describes.
    """
    if reply.status == 200:
        return reply.body
    raise _error(reply, path)


def _error(reply: Reply, path: str) -> TidegateError:
    try:
        document: Any = json.loads(reply.body)
        kind, detail = str(document["type"]).removeprefix(_KIND), str(document["detail"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return UnavailableError(f"{path} was answered with status {reply.status}, and not by a gateway")
    match kind:
        case "unknown-objective":
            return UnknownObjectiveError(document.get("objective", ""), document.get("did_you_mean"))
        case "context":
            return ContextError(document.get("attribute", ""), detail)
        case "no-rule":
            return NoRuleError(document.get("objective", ""))
        case "limited":
            return LimitedError(document.get("limit", ""), detail, 0, None, int(document.get("retry_after_s", 1)))
        case "overloaded":
            return OverloadedError(detail)
        case "no-rules" | "stores":
            return StoreError(detail)
        case "not-found":
            return UnavailableError(f"{path} is not served at this URL: it must be that of a gateway or a resolver")
        case _ if kind in _REFUSALS:
            details = {
                name: value for name, value in document.items() if name not in ("type", "title", "status", "detail")
            }
            return RefusedError(Refusal(kind), detail, **details)
        case _:
            return UnavailableError(detail)
