"""A rule's parameters as headers, which Triton turns into request parameters (`--http-header-forward-pattern`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

PREFIX: Final = b"Tidegate-Param-"
TRAFFIC: Final = b"Tidegate-Param-tidegate_traffic"
CALLER: Final = b"Tidegate-Param-tidegate_caller"

Header = tuple[bytes, bytes]


def parameter_headers(parameters: Mapping[str, str | int | float | bool]) -> tuple[Header, ...]:
    """Return parameters as headers, their values as text."""
    return tuple((PREFIX + quote(name, safe="").encode(), _text(value)) for name, value in parameters.items())


def origin_headers(caller: str | None, traffic: str) -> tuple[Header, ...]:
    """Return the headers that tell a model who sent a request, and its traffic class."""
    headers = [(TRAFFIC, traffic.encode())]
    if caller is not None:
        # callers.yaml has only names that are valid in a header.
        headers.append((CALLER, caller.encode()))
    return tuple(headers)


def _text(value: str | int | float | bool) -> bytes:
    # Text needs no encoding: the compiler refuses parameters that are not valid in a header.
    if isinstance(value, bool):
        return b"true" if value else b"false"
    return str(value).encode()
