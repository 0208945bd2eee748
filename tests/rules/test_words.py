"""Figures in words: no share is printed in scientific notation, and none is rounded to nothing or to all."""

from __future__ import annotations

import pytest
from tidegate.analysis.figures import percent, plain


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0, "0.00 %"),
        (4.9e-17, "<0.0001 %"),
        (2e-6, "0.0002 %"),
        (0.00099, "0.10 %"),
        (0.15, "15.00 %"),
        (0.9999, "99.99 %"),
        (1 - 1e-12, ">99.99 %"),
        (1, "100.00 %"),
    ],
)
def test_a_share_in_percent(share: float, words: str) -> None:
    assert percent(share) == words


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0"), (5, "5"), (2.5, "2.5"), (0.00001, "0.00001"), (1.5e-7, "0.00000015")]
)
def test_a_number_in_decimal_notation(number: float, words: str) -> None:
    assert plain(number) == words
