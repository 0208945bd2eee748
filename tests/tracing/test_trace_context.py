"""`traceparent` and `tracestate` as https://www.w3.org/TR/trace-context/ says; the cases are those of its test suite
(https://github.com/w3c/trace-context/blob/main/test/test.py)."""

from __future__ import annotations

import pytest
from tidegate.trace_context import TraceParent, trace_parent, trace_states, without_context

TRACE, SPAN = "12345678901234567890123456789012", "1234567890123456"
VALID = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("value", "flags"),
    [
        (VALID, 1),
        (f"00-{TRACE}-{SPAN}-00", 0),
        (f"  {VALID}\t", 1),
        (f"cc-{TRACE}-{SPAN}-01", 1),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", 1),
        (f"00-{TRACE}-{SPAN}-ff", 255),
    ],
)
def test_a_valid_parent_is_read(value: str, flags: int) -> None:
    assert trace_parent([(b"traceparent", value.encode())]) == TraceParent(TRACE, SPAN, flags)


@pytest.mark.parametrize(
    "value",
    [
        "", "1", f"ff-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01.", f"00-{TRACE}-{SPAN}-01-more", f"cc-{TRACE}-{SPAN}-01.more",
        f".0-{TRACE}-{SPAN}-01", f"0-{TRACE}-{SPAN}-01", f"000-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01", f"00-.{TRACE[1:]}-{SPAN}-01", f"00-{TRACE}-.{SPAN[1:]}-01", f"00-{TRACE}-{SPAN}-.0",
        f"00-{TRACE[1:]}-{SPAN}-01", f"00-{TRACE}0-{SPAN}-01", f"00-{TRACE}-{SPAN}-1", f"00-{TRACE.replace('1', 'A')}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
    ],
)  # fmt: skip
def test_an_invalid_parent_is_none(value: str) -> None:
    assert trace_parent([(b"traceparent", value.encode())]) is None


def test_a_parent_that_is_missing_or_sent_twice_is_none() -> None:
    assert trace_parent([(b"tracestate", b"a=1")]) is None
    assert trace_parent([(b"traceparent", VALID.encode())] * 2) is None


def test_every_state_is_kept_in_order_and_both_are_removed_together() -> None:
    headers = [(b"tracestate", b"a=1 "), (b"traceparent", VALID.encode()), (b"x", b"y"), (b"tracestate", b"b=2")]
    assert trace_states(headers) == ["a=1", "b=2"]
    assert without_context(headers) == [(b"x", b"y")]
