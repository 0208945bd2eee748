"""The trace that Lambda has begun for an invocation, as a `traceparent` of the request in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tidegate.trace_context import TRACEPARENT, trace_parent, without_context

VARIABLE = "_X_AMZN_TRACE_ID"
"""Where the runtime has it while it handles an invocation:
https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html#configuration-envvars-runtime"""

_ROOT = re.compile(r"1-([0-9a-f]{8})-([0-9a-f]{24})")
_PARENT = re.compile(r"[0-9a-f]{16}")

Headers = Sequence[tuple[bytes, bytes]]


def within_invocation(headers: Headers, environment: Mapping[str, str]) -> Headers:
    """Return the headers of a request with Lambda's own segment as its parent, unless its caller sent one, or Lambda records none.

    The form of X-Ray's trace ids: https://docs.aws.amazon.com/xray/latest/devguide/xray-api-sendingdata.html#xray-api-traceids
    """
    if trace_parent(headers) is not None:
        return headers
    parts = dict(each.strip().partition("=")[::2] for each in environment.get(VARIABLE, "").split(";"))
    root, parent = _ROOT.fullmatch(parts.get("Root", "")), _PARENT.fullmatch(parts.get("Parent", ""))
    if root is None or parent is None:
        return headers
    flags = "01" if parts.get("Sampled") == "1" else "00"
    kept = without_context(headers)
    kept.append((TRACEPARENT, f"00-{root[1]}{root[2]}-{parent[0]}-{flags}".encode()))
    return kept
