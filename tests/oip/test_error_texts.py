"""Error answers: what they say, whatever form they have."""

from __future__ import annotations

import pytest
from tidegate.oip.error_texts import error_text, reason


@pytest.mark.parametrize(
    ("body", "text", "said"),
    [
        (b'{"error": "no such model"}', "no such model", "no such model"),
        (b'{"error": 7}', None, '{"error": 7}'),
        (b'["error"]', None, '["error"]'),
        (b"Bad Gateway", None, "Bad Gateway"),
        (b"\xff", None, "\N{REPLACEMENT CHARACTER}"),
        (b"", None, ""),
        (b"[" * 100_000, None, "[" * 100_000),
    ],
)
def test_a_reason_is_the_text_or_the_body(body: bytes, text: str | None, said: str) -> None:
    assert (error_text(body), reason(body)) == (text, said)
