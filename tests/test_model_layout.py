"""What Triton takes for a version's folder."""

from __future__ import annotations

import pytest
from tidegate.model_layout import version_of


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("1", 1),
        ("123", 123),
        ("9" * 18, 10**18 - 1),
        ("0", None),
        ("01", None),
        ("-1", None),
        ("+1", None),
        ("1 ", None),
        ("1\n", None),
        ("v1", None),
        ("", None),
        ("9" * 19, None),
        ("١", None),
        ("²", None),
    ],
)
def test_a_version_is_a_positive_number_in_plain_digits(name: str, version: int | None) -> None:
    assert version_of(name) == version
